"""The contract's own rules, checked on every message that comes in, before anything else looks at it.

The rules stand beside the fields in ``protos/`` (protovalidate). A rule whose id is upper-snake gives the
error its reason; other rules give INVALID_REQUEST. No rule reads pixels, samples or chunks, so a message of
megabytes costs microseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import protovalidate
from google.protobuf.message import Message

from services.common.errors import InvalidInputError, Violation
from services.common.status import abort

OURS = "/bonafide."
"""How the methods begin whose messages have rules; health and reflection have none."""


class Rules:
    """Checks messages; keeps what it has compiled of their rules."""

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()

    def check(self, message: Message) -> None:
        """Do nothing, or refuse a message that breaks a rule of the contract.

        Raises:
            InvalidInputError: names each field that is wrong, and the rule; never a value.
        """
        found = [_violation(each) for each in self._validator.collect_violations(message)]
        if not found:
            return
        reason = next((each.rule for each in found if each.rule.isupper()), None)
        text = "; ".join(f"{each.field}: {each.text}" if each.field else each.text for each in found[:3])
        if reason is None:
            raise InvalidInputError(text, reason="INVALID_REQUEST", violations=found)
        raise InvalidInputError(text, reason=reason, violations=found)


def _violation(found: protovalidate.Violation) -> Violation:
    path = ""
    for element in found.proto.field.elements if found.proto.field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None and element.subscript.field == "index":
            path += f"[{element.subscript.value}]"
    return Violation(path, found.proto.rule_id, found.proto.message)


class RulesInterceptor(grpc.aio.ServerInterceptor):
    """Stands at every door of ours and turns away messages that break a rule."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(OURS):
            return handler
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(self._stream_stream(handler.stream_stream), **codecs)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._stream_unary(handler.stream_unary), **codecs)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._unary_stream(handler.unary_stream), **codecs)
        return grpc.unary_unary_rpc_method_handler(self._unary_unary(handler.unary_unary), **codecs)

    def _unary_unary(self, method: Any) -> Any:  # noqa: ANN401 - a handler of any messages
        async def checked(request: Message, context: Any) -> Any:  # noqa: ANN401
            await self._check(request, context)
            return await method(request, context)

        return checked

    def _unary_stream(self, method: Any) -> Any:  # noqa: ANN401
        async def checked(request: Message, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
            await self._check(request, context)
            async with aclosing(method(request, context)) as responses:
                async for response in responses:
                    yield response

        return checked

    def _stream_unary(self, method: Any) -> Any:  # noqa: ANN401
        async def checked(requests: AsyncIterator[Message], context: Any) -> Any:  # noqa: ANN401
            return await method(self._each(requests), context)

        return checked

    def _stream_stream(self, method: Any) -> Any:  # noqa: ANN401
        async def checked(requests: AsyncIterator[Message], context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
            async with aclosing(method(self._each(requests), context)) as responses:
                async for response in responses:
                    yield response

        return checked

    async def _each(self, requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for request in requests:
            self._rules.check(request)  # raised inside the method, which ends the call with it
            yield request

    async def _check(self, request: Message, context: Any) -> None:  # noqa: ANN401
        try:
            self._rules.check(request)
        except InvalidInputError as error:
            await abort(context, error)
