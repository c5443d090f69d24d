"""What the running task works on: the request and the clip, for the log, for spans, and for the services that it calls.

Set where they become known; tasks and ``asyncio.to_thread`` workers started afterwards inherit it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """A request and its clip; empty where not known.

    ``content_sha256`` is lower-case hex of the whole file.
    """

    request_id: str = ""
    content_sha256: str = ""


NOTHING = Subject()
"""Where nothing is known."""

_current: ContextVar[Subject] = ContextVar("bonafide_subject", default=NOTHING)


def current_subject() -> Subject:
    """What the running task works on."""
    return _current.get()


def set_subject(subject: Subject) -> None:
    """Say what the running task works on from now on; nothing undoes it, as with callers."""
    _current.set(subject)
