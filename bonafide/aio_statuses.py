"""What really ended a call of gRPC for asyncio (1.81), which mixes up two things that callers must tell apart."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from bonafide.errors import ServerUnavailableError
from bonafide.uploads import Upload

_LOST_STATUS = "Internal error from Core"
_SETTLING_SECONDS = 1.0


@contextmanager
def told_apart(upload: Upload | None = None) -> Iterator[None]:
    """Tell apart who cancelled: the caller's task, this side because it could not read, or the server.

    gRPC raises CancelledError for all three.

    Raises:
        BadInputError: the clip could not be read.
        ServerUnavailableError: the server cancelled the call.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        if upload is not None:
            upload.raise_failure()
        text = "the server cancelled the call"
        raise ServerUnavailableError(text, code="CANCELLED", reason="CANCELLED") from error


class ServerStatuses:
    """The status that the server sent, where gRPC for asyncio puts one of its own in its place.

    When a server refuses an upload before it has read it, the next message cannot be sent, and gRPC (1.81)
    then overwrites the refusal with INTERNAL. Both are reported to done callbacks, in either order.
    """

    def __init__(self, call: Any) -> None:  # noqa: ANN401 - any kind of call
        self._found: asyncio.Future[grpc.RpcError] = asyncio.get_running_loop().create_future()
        call.add_done_callback(self._note)

    async def best(self, error: grpc.RpcError) -> grpc.RpcError:
        """The server's own status if there is one, else the one given."""
        if error.details() != _LOST_STATUS:
            return error
        await asyncio.wait([self._found], timeout=_SETTLING_SECONDS)
        return self._found.result() if self._found.done() else error

    def _note(self, call: Any) -> None:  # noqa: ANN401
        details = _at_once(call.details())
        if details != _LOST_STATUS and not self._found.done():
            code, first, last = map(_at_once, (call.code(), call.initial_metadata(), call.trailing_metadata()))
            self._found.set_result(grpc.aio.AioRpcError(code, first, last, details))


def _at_once(answer: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
    """What a coroutine answers that has nothing to wait for."""
    try:
        answer.send(None)
    except StopIteration as done:
        return done.value
    answer.close()
    raise AssertionError("a call that is done has its status")
