"""The one tree of errors a caller can meet, and how each reads as a google.rpc status.

Every error carries a stable upper-snake ``reason`` for programs and one sentence for people. Texts never
hold paths, stack traces or anything of the inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Which gRPC status code an error maps to, by name."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    NOT_FOUND = "NOT_FOUND"
    ABORTED = "ABORTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that breaks a rule of the contract.

    ``field`` is its path, for instance ``items[2].options.request_id``; ``rule`` the rule's id, for instance
    ``string.max_len``; ``text`` what the rule asks for. None of them holds the field's value.
    """

    field: str
    rule: str
    text: str


class BonafideError(Exception):
    """Base of all errors that cross a door of ours.

    ``retry_after_seconds`` says when it is worth to try again, None when nothing is known about it;
    ``violations`` name the fields that were wrong.
    """

    kind = Kind.INTERNAL
    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        retry_after_seconds: float | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.violations = tuple(violations)
        if reason is not None:
            self.reason = reason


class InvalidInputError(BonafideError):
    """The caller's input can never be analysed: not media, damaged beyond use, options out of range."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_INPUT"


class LimitExceededError(BonafideError):
    """The input is over a configured limit (bytes, pixels, duration)."""

    kind = Kind.FAILED_PRECONDITION
    reason = "LIMIT_EXCEEDED"


class PreconditionError(BonafideError):
    """Something has to be done first; trying again without it gives the same answer."""

    kind = Kind.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class UnavailableError(BonafideError):
    """Something that is needed cannot be reached now; trying again may help."""

    kind = Kind.UNAVAILABLE
    reason = "UNAVAILABLE"


class ResourceExhaustedError(UnavailableError):
    """Something is at its limit now (places, quota, disk); trying again later may help."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class UnauthenticatedError(BonafideError):
    """The caller has not shown who it is."""

    kind = Kind.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDeniedError(BonafideError):
    """The caller is known and may not do this."""

    kind = Kind.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class NotFoundError(BonafideError):
    """There is no such thing, or it belongs to somebody else."""

    kind = Kind.NOT_FOUND
    reason = "NOT_FOUND"


class AbortedError(BonafideError):
    """Somebody else did the same at the same time; look again, then try again."""

    kind = Kind.ABORTED
    reason = "ABORTED"


class OutOfRangeError(BonafideError):
    """A position is not where it has to be; ask for the right one."""

    kind = Kind.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class DeadlineError(BonafideError):
    """The time allowed was used up."""

    kind = Kind.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class ModelRepositoryError(BonafideError):
    """A model is missing, altered or untrained; the service must not become ready."""

    kind = Kind.FAILED_PRECONDITION
    reason = "MODEL_NOT_TRUSTED"


class ModelNotDeployedError(BonafideError):
    """The model repository holds no such model; the branch is reported as not deployed."""

    kind = Kind.FAILED_PRECONDITION
    reason = "MODEL_NOT_DEPLOYED"
