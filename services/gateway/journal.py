"""What is written down of every analysis: a line in the log when it ends, and its steps on its span."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from services.common.callers import current_caller
from services.common.errors import BonafideError, Kind
from services.common.evidence import BranchReport
from services.common.logs import FIELDS
from services.common.subject import Subject, set_subject
from services.common.tracing import current_span
from services.gateway.analysis import Analysis, Event, Options, Progress, Stage

_OK, _CANCELLED = "OK", "CANCELLED"
_log = logging.getLogger(__name__)


class Entry:
    """One analysis as it goes on; its span is that of the running task."""

    def __init__(self, options: Options) -> None:
        self._began = time.monotonic()
        self._span = current_span()
        self._priority = options.priority.value
        self._stage: Stage | None = None
        self._verdict = ""
        self._cached = False
        self._request_id = options.request_id
        set_subject(Subject(options.request_id))
        self._span.set_attribute("bonafide.request_id", options.request_id)

    def identified(self, sha256: str) -> None:
        """The clip has come in whole, and this is its hash."""
        set_subject(Subject(self._request_id, sha256))
        self._span.set_attribute("bonafide.content_sha256", sha256)

    def note(self, event: Event) -> None:
        """Something that the caller is told."""
        if isinstance(event, Progress):
            if event.stage is not self._stage:
                self._span.add_event(f"stage {event.stage}")
            self._stage = event.stage
        elif isinstance(event, BranchReport):
            reason = event.reason.value if event.reason is not None else ""
            self._span.add_event(
                f"branch {event.branch}", {"bonafide.outcome": event.outcome.value, "bonafide.reason": reason}
            )
        elif isinstance(event, Analysis):
            self._verdict, self._cached = event.fusion.verdict.value, event.cached
            self._span.set_attributes({"bonafide.verdict": self._verdict, "bonafide.cached": self._cached})

    def close(self, code: str, reason: str = "") -> None:
        """It has ended."""
        if self._verdict and code == _CANCELLED:  # all had been said
            code = _OK
        fields = {
            "code": code,
            "reason": reason,
            "verdict": self._verdict,
            "milliseconds": round((time.monotonic() - self._began) * 1000, 1),
            "priority": self._priority,
            "cached": self._cached if self._verdict else "",
            "caller": current_caller().name,
        }
        _log.info("analysis", extra={FIELDS: {name: value for name, value in fields.items() if value != ""}})


@contextmanager
def written_down(options: Options) -> Iterator[Entry]:
    """An entry for one analysis, closed with whatever ends the block."""
    entry = Entry(options)
    try:
        yield entry
    except BonafideError as error:
        entry.close(error.kind.value, error.reason)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        entry.close(_CANCELLED)
        raise
    except Exception:
        entry.close(Kind.INTERNAL.value)
        raise
    else:
        entry.close(_OK)
