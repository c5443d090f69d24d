"""The client for asyncio: the same calls, policy and answers as ``bonafide.client``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from bonafide.aio_statuses import ServerStatuses, told_apart
from bonafide.analysis import Analysis, Event, ServedModel
from bonafide.calls import Attempts, RetryPolicy, attempted
from bonafide.client import DEFAULT_TIMEOUT_SECONDS, SMALL_TIMEOUT_SECONDS
from bonafide.connection import Credentials, Target
from bonafide.errors import ClientError, ServerUnavailableError, from_rpc_error
from bonafide.messages import (
    Batch,
    BatchResult,
    Options,
    batch_item,
    event_from_proto,
    finished,
    kept,
    models_from_proto,
    new_upload,
    options_message,
    requests,
    resumable,
    stretch,
)
from bonafide.tracing import Headers
from bonafide.uploads import CHUNK_BYTES, Clip, LocalClip, Sent, Upload, Uploaded, Uri, read_ahead
from bonafide.v1 import analysis_pb2, analysis_pb2_grpc, upload_pb2, upload_pb2_grpc


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
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._target = Target.of(address, credentials or Credentials())
        self._retries = retries or RetryPolicy()
        self._chunk_bytes = chunk_bytes
        secret = self._target.credentials.channel_credentials()
        if secret is None:
            self._channel = grpc.aio.insecure_channel(self._target.address, self._target.options())
        else:
            self._channel = grpc.aio.secure_channel(self._target.address, secret, self._target.options())
        self._stub: analysis_pb2_grpc.AnalysisServiceAsyncStub = analysis_pb2_grpc.AnalysisServiceStub(self._channel)
        self._uploads: upload_pb2_grpc.UploadServiceAsyncStub = upload_pb2_grpc.UploadServiceStub(self._channel)

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
        with (
            attempted("analyze", self._retries, timeout) as attempts,
            Upload(clip, on_sent, self._chunk_bytes) as upload,
        ):
            first = options_message(options, upload)
            while True:
                try:
                    async for event in self._events_once(first, upload, attempts):
                        yield event
                except ClientError as error:
                    error.request_id = first.request_id
                    if not upload.repeatable:
                        raise
                    await asyncio.sleep(attempts.pause_after(error))
                else:
                    return

    async def upload(
        self, clip: LocalClip, *, on_sent: Sent | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> Uploaded:
        """See ``Client.upload``."""
        with (
            attempted("upload", self._retries, timeout) as attempts,
            Upload(clip, on_sent, self._chunk_bytes) as upload,
        ):
            state = (await self._call(self._uploads.CreateUpload, new_upload(upload), attempts)).upload
            while not state.complete:
                before = state.received_bytes
                state = await self._send_on(state, upload, attempts)
                if state.received_bytes > before:
                    attempts.progressed()
        return Uploaded(state.upload_id, state.size_bytes)

    async def delete_upload(self, uploaded: Uploaded, *, timeout: float = SMALL_TIMEOUT_SECONDS) -> None:
        """See ``Client.delete_upload``."""
        request = upload_pb2.DeleteUploadRequest(upload_id=uploaded.upload_id)
        with attempted("delete_upload", self._retries, timeout) as attempts:
            await self._call(self._uploads.DeleteUpload, request, attempts)

    async def batch(
        self,
        clips: Sequence[Uploaded | Uri],
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        **options: Unpack[Options],
    ) -> AsyncIterator[BatchResult]:
        """See ``Client.batch``. Close it (``contextlib.aclosing``) when leaving it early."""
        with attempted("batch", self._retries, timeout) as attempts:
            batch = Batch([batch_item(clip, options) for clip in clips])
            while not batch.whole:
                call = self._stub.BatchAnalyze(
                    batch.request(), timeout=attempts.begin(), metadata=self._metadata(attempts)
                )
                try:
                    with told_apart():
                        async for response in call:
                            yield batch.result(response)
                            attempts.progressed()
                    batch.ended()
                except ServerUnavailableError as error:
                    await asyncio.sleep(attempts.pause_after(error))
                except grpc.RpcError as error:
                    await asyncio.sleep(attempts.pause_after(self._error(error)))
                finally:
                    call.cancel()

    async def models(self, *, timeout: float = SMALL_TIMEOUT_SECONDS) -> list[ServedModel]:
        """See ``Client.models``."""
        with attempted("models", self._retries, timeout) as attempts:
            return models_from_proto(
                await self._call(self._stub.ListModels, analysis_pb2.ListModelsRequest(), attempts)
            )

    async def _events_once(
        self, first: analysis_pb2.AnalyzeOptions, upload: Upload, attempts: Attempts
    ) -> AsyncIterator[Event | Analysis]:
        timeout, metadata = attempts.begin(), self._metadata(attempts)
        call: Any
        if isinstance(upload.clip, Uri):
            request = analysis_pb2.AnalyzeUriRequest(uri=upload.clip.uri, options=first)
            call = self._stub.AnalyzeUri(request, timeout=timeout, metadata=metadata)
        else:
            messages = read_ahead(requests(first, upload.chunks()))
            call = self._stub.Analyze(messages, timeout=timeout, metadata=metadata)
        statuses = ServerStatuses(call)
        try:
            with told_apart(upload):
                async for response in call:
                    event = event_from_proto(response)
                    if event is not None:
                        yield event
        except grpc.RpcError as error:
            upload.raise_failure()
            raise self._error(await statuses.best(error)) from error
        finally:
            call.cancel()

    async def _send_on(self, state: upload_pb2.Upload, upload: Upload, attempts: Attempts) -> upload_pb2.Upload:
        """Send what is missing; where that fails, ask how far it got."""
        metadata = self._metadata(attempts)
        messages = read_ahead(stretch(state, upload))
        call = self._uploads.SendChunks(messages, timeout=attempts.begin(), metadata=metadata)
        statuses = ServerStatuses(call)
        try:
            with told_apart(upload):
                return kept(await call)
        except ServerUnavailableError as error:
            found: ClientError = error
        except grpc.RpcError as error:
            upload.raise_failure()
            found = self._error(await statuses.best(error))
        finally:
            call.cancel()
        await asyncio.sleep(attempts.pause_after(resumable(found)))
        request = upload_pb2.GetUploadRequest(upload_id=state.upload_id)
        answer: upload_pb2.GetUploadResponse = await self._call(self._uploads.GetUpload, request, attempts)
        return answer.upload

    async def _call(self, method: Callable[..., Any], request: Any, attempts: Attempts) -> Any:  # noqa: ANN401
        """One unary call, tried again where that helps."""
        while True:
            try:
                with told_apart():
                    return await method(request, timeout=attempts.begin(), metadata=self._metadata(attempts))
            except ServerUnavailableError as error:
                found: ClientError = error
            except grpc.RpcError as error:
                found = self._error(error)
            await asyncio.sleep(attempts.pause_after(found))

    def _metadata(self, attempts: Attempts) -> Headers:
        """Headers of one try."""
        return (*self._target.credentials.metadata(), *attempts.headers)

    def _error(self, error: grpc.RpcError) -> ClientError:
        return from_rpc_error(error, self._target.address)
