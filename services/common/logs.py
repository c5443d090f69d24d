"""The log of a service: one line for each thing that happened, as JSON or for people, with what it belongs to.

Every line says when, how serious, which service, and what; where the running task has them also its trace, its
request and the hash of its clip. A line never holds media, credentials or names of callers' files: messages are
texts of ours, and of an exception only its type and its places in the code are written, because its own text may
quote anything. The texts of errors of ours quote nothing, so they are written too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from services.common.errors import BonafideError
from services.common.settings import LogFormat
from services.common.subject import current_subject
from services.common.tracing import current_ids

OURS = ("services", "bonafide", "deploy")
"""Packages whose own level counts; others speak from WARNING on, because in detail they quote headers."""
FIELDS = "fields"
"""Key of ``extra`` under which a call to a logger gives named values."""
_MOST_FRAMES, _MOST_CAUSES = 30, 5
_log = logging.getLogger(__name__)

Values = Mapping[str, Any]


class JsonLines(logging.Formatter):
    """Each record as one JSON object on one line."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **context(),
            **_fields(record),
        }
        if error := _error(record):
            line["exception"] = described(error)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """Each record as a line for people; an exception follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        named = {**_fields(record), **context()}
        values = "".join(f" {name}={json.dumps(value, default=str)}" for name, value in named.items())
        text = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{values}"
        if error := _error(record):
            text += f"\n{json.dumps(described(error), indent=2)}"
        return text


def set_up_logs(service: str, level: str, form: LogFormat, stream: TextIO | None = None) -> None:
    """Write this process's log to stderr, or to a stream; also what nobody caught."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(service) if form is LogFormat.JSON else TextLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    sys.excepthook = _uncaught
    threading.excepthook = lambda ended: _uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback)


def log_loop_errors(_loop: asyncio.AbstractEventLoop, about: Mapping[str, Any]) -> None:
    """For ``loop.set_exception_handler``: asyncio's own would quote the exception in its message."""
    _log.error("an error that nobody waited for", exc_info=about.get("exception"))


def context() -> dict[str, str]:
    """What the running task belongs to, as far as it is known."""
    ids, subject = current_ids(), current_subject()
    known = {
        "trace_id": ids[0] if ids else "",
        "span_id": ids[1] if ids else "",
        "request_id": subject.request_id,
        "content_sha256": subject.content_sha256,
    }
    return {name: value for name, value in known.items() if value}


def described(error: BaseException, depth: int = 0) -> dict[str, Any]:
    """An exception as plain values: its type, the places it came through, what caused it; its text only if ours."""
    frames = traceback.extract_tb(error.__traceback__, limit=-_MOST_FRAMES)
    told: dict[str, Any] = {"type": f"{type(error).__module__}.{type(error).__qualname__}"}
    if isinstance(error, BonafideError):
        told |= {"reason": error.reason, "message": error.message}
    elif isinstance(error, OSError) and error.strerror:
        told |= {"errno": error.errno, "message": error.strerror}
    told["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and depth < _MOST_CAUSES:
        told["cause"] = described(cause, depth + 1)
    return told


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, KeyboardInterrupt):
        _log.critical("an error that nobody caught", exc_info=(kind, error, trace))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> Values:
    fields: Values = getattr(record, FIELDS, {})
    return fields


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None
