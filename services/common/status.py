"""Where errors become google.rpc statuses, and statuses errors again. The only such place."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.common.errors import (
    BonafideError,
    DeadlineError,
    Kind,
    ResourceExhaustedError,
    UnavailableError,
    Violation,
)
from services.common.tracing import current_span, note_error

DOMAIN = "bonafide"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
_STATUS_KEY = "grpc-status-details-bin"
_CODES = {kind: grpc.StatusCode[kind.value] for kind in Kind}
_log = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Details:
    """What a failed call says besides its code and its text."""

    reason: str
    retry_after_seconds: float | None = None
    violations: tuple[Violation, ...] = ()


def rpc_status_of(error: BonafideError) -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo always, RetryInfo and BadRequest when there is such advice."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(_milliseconds(error.retry_after_seconds))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=each.field, reason=each.rule, description=each.text
                    )
                    for each in error.violations
                ]
            )
        )
    status = status_pb2.Status(code=_CODES[error.kind].value[0], message=error.message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def rich_status(error: BonafideError) -> Any:  # noqa: ANN401 - grpc_status is untyped
    """The same ready for ``abort_with_status``, with the pushback that gRPC's own retries obey."""
    status: Any = rpc_status.to_status(rpc_status_of(error))
    if error.retry_after_seconds is None:
        return status
    pushback = (PUSHBACK_KEY, str(_milliseconds(error.retry_after_seconds)))
    return status._replace(trailing_metadata=(*status.trailing_metadata, pushback))


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 0)


def details_of(error: grpc.RpcError) -> Details:
    """What a failed call carries; the reason is its status code's name when it carries none."""
    reason: str = error.code().name
    retry_after: float | None = None
    violations: tuple[Violation, ...] = ()
    for detail in _packed(error):
        info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
        elif detail.Unpack(bad):
            violations = tuple(Violation(each.field, each.reason, each.description) for each in bad.field_violations)
    return Details(reason, retry_after, violations)


def _packed(error: grpc.RpcError) -> Iterable[any_pb2.Any]:
    """The details of a failed call; none when they are not what its code and text say."""
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except (ValueError, DecodeError):
        return ()
    return status.details if status is not None else ()


def reason_in(trailers: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The reason in the trailers by which a call of ours ended; None when they hold none."""
    info, status = error_details_pb2.ErrorInfo(), status_pb2.Status()
    for packed in (value for key, value in trailers if key == _STATUS_KEY and isinstance(value, bytes)):
        status.ParseFromString(packed)
        if any(detail.Unpack(info) for detail in status.details):
            return str(info.reason)
    return None


def error_reason(error: grpc.RpcError) -> str:
    """The ErrorInfo reason that a failed call carries, or its status code's name."""
    return details_of(error).reason


_FAILURES: dict[grpc.StatusCode, tuple[type[BonafideError], str]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: (DeadlineError, "did not answer in time"),
    grpc.StatusCode.UNAVAILABLE: (UnavailableError, "cannot be reached"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (ResourceExhaustedError, "is at its limit"),
}


def from_rpc_error(error: grpc.RpcError, peer: str) -> BonafideError:
    """The error of ours that a failed call to a service of ours stands for.

    It keeps the reason and the advice when to try again. It drops the peer's text and violations: they speak
    of a request that the caller never saw.
    """
    kind, text = _FAILURES.get(error.code(), (BonafideError, "failed"))
    details = details_of(error)
    return kind(f"{peer} {text}", reason=details.reason, retry_after_seconds=details.retry_after_seconds)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """End a call with an error; one that is not of ours is logged and stays private."""
    if not isinstance(error, BonafideError):
        _log.exception("unexpected error in a call")
        error = BonafideError("an internal error; it has been logged")
    note_error(current_span(), error)
    _let_go(error)
    await context.abort_with_status(rich_status(error))
    raise AssertionError("abort returned")


def _let_go(error: BaseException | None) -> None:
    """Empty the frames that an error came through: they hold messages of tens of megabytes.

    gRPC's own references to a failed call form cycles, which only the garbage collector ends, and late.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def unary_errors(
    method: Callable[[Any, Request, Any], Awaitable[Response]],
) -> Callable[[Any, Request, Any], Awaitable[Response]]:
    """Decorator of unary servicer methods: errors become statuses, the unexpected stays private."""

    @functools.wraps(method)
    async def wrapped(servicer: Any, request: Request, context: Any) -> Response:  # noqa: ANN401
        try:
            return await method(servicer, request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the door through which nothing unexpected leaves
            await abort(context, error)

    return wrapped


def stream_errors(
    method: Callable[[Any, Any, Any], AsyncIterator[Response]],
) -> Callable[[Any, Any, Any], AsyncIterator[Response]]:
    """The same for methods that answer with a stream."""

    @functools.wraps(method)
    async def wrapped(servicer: Any, requests: Any, context: Any) -> AsyncIterator[Response]:  # noqa: ANN401
        try:
            async for response in method(servicer, requests, context):
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the door through which nothing unexpected leaves
            await abort(context, error)

    return wrapped


ANSWER_MARGIN_SECONDS = 0.2
"""Kept of a caller's deadline between services of ours, to send what is known by then."""


def remaining_seconds(context: grpc.aio.ServicerContext[Any, Any], *, default: float, margin: float = 0.0) -> float:
    """Seconds left of the caller's deadline less a margin, or ``default`` when there is none; at least 0."""
    remaining = cast("float | None", context.time_remaining())  # the stubs forget calls without a deadline
    if remaining is None:
        return default
    return max(min(remaining - margin, default), 0.0)
