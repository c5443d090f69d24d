"""Who is calling: decided once at the door, read wherever fairness, quotas or the ledger need a name.

The door sets the caller for the task that serves a call; tasks and ``asyncio.to_thread`` workers that the
call starts inherit it, because context variables do.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum


class Credential(StrEnum):
    """What a caller proved itself by."""

    NONE = "none"
    API_KEY = "api_key"
    TOKEN = "token"  # noqa: S105 - the name of a kind, not a secret
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone who calls: ``name`` is stable and safe to log, and unique among the callers of a gateway."""

    name: str
    credential: Credential = Credential.NONE


ANONYMOUS = Caller("anonymous")
"""The caller where nobody has to prove anything."""

_current: ContextVar[Caller] = ContextVar("bonafide_caller", default=ANONYMOUS)


def current_caller() -> Caller:
    """The caller of the call that is being served, or ANONYMOUS."""
    return _current.get()


def set_caller(caller: Caller) -> None:
    """Make it the caller of the running task, and of the tasks and threads that this one starts from now on.

    Nothing undoes it: a task serves one call, and an asynchronous generator may be closed in another context.
    """
    _current.set(caller)
