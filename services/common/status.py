"""Where errors become google.rpc statuses, and statuses errors again. The only such place."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.common.errors import BonafideError, DeadlineError, Kind, UnavailableError

DOMAIN = "bonafide"
_CODES = {kind: grpc.StatusCode[kind.value] for kind in Kind}
_log = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")


def rich_status(error: BonafideError) -> Any:  # noqa: ANN401 - grpc_status is untyped
    """The google.rpc.Status of an error, with ErrorInfo (reason, domain), ready for ``abort_with_status``."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    code: int = _CODES[error.kind].value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=error.message, details=[info]))


def error_reason(error: grpc.RpcError) -> str:
    """The ErrorInfo reason that a failed call carries, or its status code's name."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            return str(info.reason)
    return str(error.code().name)


def from_rpc_error(error: grpc.RpcError, peer: str) -> BonafideError:
    """The error of ours that a failed call to a service of ours stands for."""
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"{peer} did not answer in time")
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}:
        return UnavailableError(f"{peer} cannot be reached or is at its limit")
    return BonafideError(f"{peer} failed", reason=error_reason(error))


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    if not isinstance(error, BonafideError):
        _log.exception("unexpected error in a call")
        error = BonafideError("an internal error; it has been logged")
    await context.abort_with_status(rich_status(error))
    raise AssertionError("abort returned")


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
            await _abort(context, error)

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
            await _abort(context, error)

    return wrapped


def remaining_seconds(context: grpc.aio.ServicerContext[Any, Any], *, default: float, margin: float = 0.0) -> float:
    """Seconds left of the caller's deadline less a margin, or ``default`` when there is none; at least 0."""
    remaining = cast("float | None", context.time_remaining())  # the stubs forget calls without a deadline
    if remaining is None:
        return default
    return max(min(remaining - margin, default), 0.0)
