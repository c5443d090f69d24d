"""The one tree of errors a caller can meet, and how each reads as a google.rpc status.

Every error carries a stable upper-snake ``reason`` for programs and one sentence for people. Texts never
hold paths, stack traces or anything of the inside.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Which gRPC status code an error maps to, by name."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


class BonafideError(Exception):
    """Base of all errors that cross a door of ours."""

    kind = Kind.INTERNAL
    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
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


class UnavailableError(BonafideError):
    """Something that is needed cannot be reached now; trying again may help."""

    kind = Kind.UNAVAILABLE
    reason = "UNAVAILABLE"


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
