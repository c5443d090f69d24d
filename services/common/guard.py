"""A door in front of servicers: who may not enter is refused before any of the message is read."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import grpc

from services.common import health
from services.common.status import abort

Context = grpc.aio.ServicerContext[Any, Any]
Admit = Callable[[Context], Awaitable[None]]
Around = Callable[[Context], AbstractAsyncContextManager[None]]
"""Made for every call, entered before any of its message is read, left when it has been answered or has failed."""


class Guard(grpc.aio.ServerInterceptor):
    """Asks ``admit`` at the start of every call but those of health, which are never refused.

    ``admit`` raises a BonafideError to refuse. It runs in the task that then serves the call, so context
    variables that it sets hold for the call.
    """

    def __init__(self, admit: Admit) -> None:
        self._admit = admit

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(health.METHODS):
            return handler
        return wrapped(handler, self._enter)

    @asynccontextmanager
    async def _enter(self, context: Context) -> AsyncIterator[None]:
        try:
            await self._admit(context)
        except Exception as error:  # noqa: BLE001 - nothing unexpected leaves by this door either
            await abort(context, error)
        yield


def metadata(context: Context) -> Mapping[str, str]:
    """The caller's text metadata; of a key that is given twice, the last."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def wrapped(handler: grpc.RpcMethodHandler[Any, Any], around: Around) -> grpc.RpcMethodHandler[Any, Any]:
    """The same method with something around it, always in the form that takes a stream.

    gRPC reads a unary request whole, up to the largest message, before it calls the method; a stream is read
    only when the method asks.
    """
    serve: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    streams = handler.request_streaming

    async def answer(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401
        async with around(context):
            return await serve(requests if streams else await _only(requests, context), context)

    async def answers(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async with (
            around(context),
            aclosing(serve(requests if streams else await _only(requests, context), context)) as responses,
        ):
            async for response in responses:
                yield response

    forms = (handler.request_deserializer, handler.response_serializer)
    if not handler.response_streaming:
        return grpc.stream_unary_rpc_method_handler(answer, *forms)
    if inspect.isasyncgenfunction(serve):
        return grpc.stream_stream_rpc_method_handler(answers, *forms)
    return grpc.stream_stream_rpc_method_handler(answer, *forms)


async def _only(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401
    try:
        return await anext(requests)
    except StopAsyncIteration:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call holds no message")
