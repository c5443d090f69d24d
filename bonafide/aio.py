"""The client for asyncio: the same calls, policy and answers as ``bonafide.client``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from bonafide.analysis import Analysis, Event, ServedModel
from bonafide.calls import Attempts, RetryPolicy
from bonafide.client import DEFAULT_TIMEOUT_SECONDS, MODELS_TIMEOUT_SECONDS
from bonafide.connection import Credentials, Target
from bonafide.errors import ClientError, from_rpc_error
from bonafide.messages import Options, event_from_proto, finished, models_from_proto, options_message, requests
from bonafide.uploads import Clip, Sent, Upload, read_ahead
from bonafide.v1 import analysis_pb2, analysis_pb2_grpc

_LOST_STATUS = "Internal error from Core"
_SETTLING_SECONDS = 1.0


class AsyncClient:
    """A connection to the gateway for one event loop; an asynchronous context manager.

    Arguments and errors are those of ``bonafide.Client``; make it where the loop runs.
    """

    def __init__(
        self,
        address: str | Sequence[str] | None = None,
        *,
        credentials: Credentials | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self._target = Target.of(address, credentials or Credentials())
        self._retries = retries or RetryPolicy()
        secret = self._target.credentials.channel_credentials()
        if secret is None:
            self._channel = grpc.aio.insecure_channel(self._target.address, self._target.options())
        else:
            self._channel = grpc.aio.secure_channel(self._target.address, secret, self._target.options())
        self._stub: analysis_pb2_grpc.AnalysisServiceAsyncStub = analysis_pb2_grpc.AnalysisServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way end."""
        await self._channel.close()

    async def analyze(
        self,
        clip: Clip,
        *,
        on_event: Callable[[Event], None] | None = None,
        on_sent: Sent | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        **options: Unpack[Options],
    ) -> Analysis:
        """See ``Client.analyze``. Cancelling the task cancels the call."""
        analysis = None
        async for event in self.events(clip, on_sent=on_sent, timeout=timeout, **options):
            if isinstance(event, Analysis):
                analysis = event
            elif on_event is not None:
                on_event(event)
        return finished(analysis)

    async def events(
        self,
        clip: Clip,
        *,
        on_sent: Sent | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        **options: Unpack[Options],
    ) -> AsyncIterator[Event | Analysis]:
        """See ``Client.events``. Close it (``contextlib.aclosing``) when leaving it early."""
        attempts = Attempts(self._retries, timeout)
        with Upload(clip, on_sent) as upload:
            first = options_message(options, upload)
            while True:
                try:
                    async for event in self._events_once(first, upload, attempts.begin()):
                        yield event
                except ClientError as error:
                    error.request_id = first.request_id
                    if not upload.repeatable:
                        raise
                    await asyncio.sleep(attempts.pause_after(error))
                else:
                    return

    async def models(self, *, timeout: float = MODELS_TIMEOUT_SECONDS) -> list[ServedModel]:
        """See ``Client.models``."""
        return models_from_proto(await self._call(self._stub.ListModels, analysis_pb2.ListModelsRequest(), timeout))

    async def _events_once(
        self, first: analysis_pb2.AnalyzeOptions, upload: Upload, timeout: float
    ) -> AsyncIterator[Event | Analysis]:
        messages = requests(first, upload.chunks())
        call = self._stub.Analyze(read_ahead(messages), timeout=timeout, metadata=self._target.credentials.metadata())
        statuses = _Statuses(call)
        try:
            async for response in call:
                event = event_from_proto(response)
                if event is not None:
                    yield event
        except asyncio.CancelledError:
            upload.raise_failure()  # gRPC cancels a call whose requests it cannot read
            raise
        except grpc.RpcError as error:
            upload.raise_failure()
            raise self._error(await statuses.best(error)) from error
        finally:
            call.cancel()

    async def _call(self, method: Callable[..., Any], request: Any, timeout: float) -> Any:  # noqa: ANN401
        """One unary call, tried again where that helps."""
        attempts = Attempts(self._retries, timeout)
        while True:
            try:
                return await method(request, timeout=attempts.begin(), metadata=self._target.credentials.metadata())
            except grpc.RpcError as error:
                await asyncio.sleep(attempts.pause_after(self._error(error)))

    def _error(self, error: grpc.RpcError) -> ClientError:
        return from_rpc_error(error, self._target.address)


class _Statuses:
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
