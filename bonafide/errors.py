"""The one tree of errors that a user of the client can meet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailer by which a server says when to try again, milliseconds; negative means never."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that breaks a rule: its path in the message, and the rule in words."""

    field: str
    description: str


class ClientError(Exception):
    """A call that failed.

    Attributes:
        message: one sentence for people.
        code: name of the gRPC status code.
        reason: stable upper-snake reason for programs (``docs/errors.md``), or the code's name.
        violations: what is wrong with the request, field by field.
        retry_after_seconds: how long the server asks to wait before another try; None when it says nothing.
        retryable: whether the same call may succeed later.
        request_id: id of the analysis that failed; empty for other calls.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        code: str,
        reason: str,
        violations: tuple[Violation, ...] = (),
        retry_after_seconds: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id


class BadInputError(ClientError):
    """The clip or the options cannot be analysed; trying again gives the same answer."""


class NotFoundError(BadInputError):
    """What the request names is not there (an upload that has expired, for one)."""


class AccessDeniedError(ClientError):
    """The credentials are missing, wrong, or do not allow this."""


class ServerUnreachableError(ClientError):
    """Nobody answers at the address; trying again may help."""

    retryable = True


class AnalysisFailedError(ClientError):
    """The server answered, but could not finish."""


class ServerUnavailableError(AnalysisFailedError):
    """Something that the server needs is out of reach; trying again may help."""

    retryable = True


class ConflictError(AnalysisFailedError):
    """Somebody does the same at this moment (an earlier try of one's own, for one); trying again may help."""

    retryable = True


class OverloadedError(AnalysisFailedError):
    """The server, or this caller's quota, is at its limit; tried again only when the server says when."""


class DeadlineExceededError(AnalysisFailedError):
    """The time allowed was used up."""


_KINDS: dict[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: BadInputError,
    grpc.StatusCode.FAILED_PRECONDITION: BadInputError,
    grpc.StatusCode.OUT_OF_RANGE: BadInputError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAUTHENTICATED: AccessDeniedError,
    grpc.StatusCode.PERMISSION_DENIED: AccessDeniedError,
    grpc.StatusCode.CANCELLED: ServerUnavailableError,  # not by this side: that is no error of the call
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}


def from_rpc_error(error: grpc.RpcError, address: str) -> ClientError:
    """The error that a failed call stands for, with all that its status says.

    A status without ErrorInfo was made on the way, not by the server: UNAVAILABLE is then a server that
    nobody reached.
    """
    code, message = error.code(), error.details() or "no details"
    details = _Details.of(_details(error))
    kind = _KINDS.get(code, AnalysisFailedError)
    if code is grpc.StatusCode.UNAVAILABLE:
        kind = ServerUnavailableError
        if not details.reason:
            kind = ServerUnreachableError
            message = f"no server answers at {address} (start one with: bonafide up)"
    found = kind(
        message,
        code=code.name,
        reason=details.reason or code.name,
        violations=details.violations,
        retry_after_seconds=details.retry_after_seconds,
    )
    return _advised(found, error)


def from_status(status: status_pb2.Status) -> ClientError:
    """The error that a google.rpc.Status inside an answer stands for (one item of a batch)."""
    code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    details = _Details.of(status.details)
    kind = ServerUnavailableError if code is grpc.StatusCode.UNAVAILABLE else _KINDS.get(code, AnalysisFailedError)
    return kind(
        status.message,
        code=code.name,
        reason=details.reason or code.name,
        violations=details.violations,
        retry_after_seconds=details.retry_after_seconds,
    )


def _advised(found: ClientError, error: grpc.RpcError) -> ClientError:
    """Add what the retry trailer says; it outranks the kind of the error."""
    trailers = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    pushback = next((value for key, value in trailers if key == PUSHBACK_KEY), None)
    if pushback is not None:
        milliseconds = int(pushback) if str(pushback).lstrip("-").isdecimal() else -1
        if milliseconds >= 0:
            found.retry_after_seconds = max(found.retry_after_seconds or 0.0, milliseconds / 1000)
        else:
            found.retryable = False
            return found
    if isinstance(found, OverloadedError) and found.retry_after_seconds is not None:
        found.retryable = True
    return found


@dataclass(frozen=True, slots=True)
class _Details:
    """What the details of a google.rpc.Status say, as far as this client reads them."""

    reason: str = ""
    violations: tuple[Violation, ...] = ()
    retry_after_seconds: float | None = None

    @classmethod
    def of(cls, details: Iterable[Any]) -> _Details:
        reason, retry = "", None
        violations: tuple[Violation, ...] = ()
        info, request, advice = error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo
        for detail in details:
            for kind in (info, request, advice):
                message = kind()
                if not (detail.Is(message.DESCRIPTOR) and detail.Unpack(message)):
                    continue
                if kind is info:
                    reason = str(message.reason)
                elif kind is request:
                    violations = tuple(Violation(each.field, each.description) for each in message.field_violations)
                else:
                    retry = message.retry_delay.ToNanoseconds() / 1e9
        return cls(reason, violations, retry)


def _details(error: grpc.RpcError) -> Iterable[Any]:
    """Details of a failed call; none when a proxy on the way garbled them."""
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except (ValueError, DecodeError):
        return ()
    return status.details if status is not None else ()
