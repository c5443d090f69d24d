"""What a call carries from service to service besides its message: its place in a trace, and what it is about.

One interceptor reads that at the door of a service, the other writes it on calls that the service makes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from opentelemetry.trace import Span, SpanKind, StatusCode

from services.common.guard import Context, metadata, wrapped
from services.common.subject import Subject, current_subject, set_subject
from services.common.trace_export import Tracing
from services.common.tracing import enter_trace, note_error, outgoing, span
from services.common.validation import OURS

REQUEST_KEY = "bonafide-request-id-bin"
CONTENT_KEY = "bonafide-content-sha256"
_LONGEST_REQUEST_ID = 512
_HASH = re.compile(r"[0-9a-f]{64}")
_SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""The codes that OpenTelemetry counts as errors of a server; the others are the caller's, or advice."""


class ArrivingHop(grpc.aio.ServerInterceptor):
    """Goes before all other interceptors of a server, so that what they refuse is part of the trace too.

    Calls that are not to services of ours (health, reflection) pass.
    """

    def __init__(self, tracing: Tracing | None) -> None:
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OURS):
            return handler
        return wrapped(handler, lambda context: self._serving(method, context))

    @asynccontextmanager
    async def _serving(self, method: str, context: Context) -> AsyncIterator[None]:
        headers = dict(metadata(context))
        set_subject(_subject(context, headers))
        opened = enter_trace(self._tracing, headers, method.removeprefix("/"), _rpc(method))
        code = grpc.StatusCode.OK
        try:
            yield
        except grpc.aio.AbortError:  # which error it was is noted where it became a status
            code = _code(context)
            raise
        except (asyncio.CancelledError, GeneratorExit) as error:
            code = _ended_early(context)
            note_error(opened, error)
            raise
        except Exception as error:
            code = grpc.StatusCode.UNKNOWN
            note_error(opened, error)
            raise
        finally:
            _note_code(opened, code, failed=code in _SERVER_FAULTS)
            opened.end()


class LeavingHop(grpc.aio.UnaryUnaryClientInterceptor):
    """Writes it on unary calls to services of ours; calls outside of any, like those for health, are left alone."""

    async def intercept_unary_unary(
        self,
        continuation: Any,  # noqa: ANN401
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """See grpc.aio.UnaryUnaryClientInterceptor."""
        method = _text(client_call_details.method)
        if not method.startswith(OURS):
            return await continuation(client_call_details, request)
        with span(method.removeprefix("/"), _rpc(method), SpanKind.CLIENT) as opened:
            call = await continuation(_with_headers(client_call_details), request)
            try:
                code = await call.code()
            except asyncio.CancelledError:
                call.cancel()
                raise
            failed = code not in {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            _note_code(opened, code, failed=failed)
            return call


def _with_headers(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    carried = grpc.aio.Metadata(*(details.metadata or ()), *_carried())
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, carried, details.credentials, details.wait_for_ready
    )


def _carried() -> list[tuple[str, str | bytes]]:
    subject = current_subject()
    carried: list[tuple[str, str | bytes]] = [*outgoing().items()]
    if subject.request_id:
        carried.append((REQUEST_KEY, subject.request_id.encode()[:_LONGEST_REQUEST_ID]))
    if subject.content_sha256:
        carried.append((CONTENT_KEY, subject.content_sha256))
    return carried


def _subject(context: Context, headers: dict[str, str]) -> Subject:
    """What a service of ours says that its call is about; any caller may say so, and only the log believes it."""
    given = (value for key, value in context.invocation_metadata() or () if key == REQUEST_KEY)
    request_id = _text(next(given, b"")[:_LONGEST_REQUEST_ID])
    content = headers.get(CONTENT_KEY, "")
    return Subject(request_id, content if _HASH.fullmatch(content) else "")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


def _rpc(method: str) -> dict[str, str]:
    service, _, name = method.removeprefix("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def _code(context: Context) -> grpc.StatusCode:
    number: Any = context.code()
    return next((code for code in grpc.StatusCode if number in {code, code.value[0]}), grpc.StatusCode.UNKNOWN)


def _ended_early(context: Context) -> grpc.StatusCode:
    """Why a call was cancelled: its time was used up, or its caller left."""
    late = context.time_remaining()
    return grpc.StatusCode.DEADLINE_EXCEEDED if late is not None and late <= 0 else grpc.StatusCode.CANCELLED


def _note_code(opened: Span, code: grpc.StatusCode, *, failed: bool) -> None:
    opened.set_attribute("rpc.grpc.status_code", code.value[0])
    if failed:
        opened.set_status(StatusCode.ERROR)
