"""The client: a clip in, an ``Analysis`` out. ``bonafide.aio`` has its twin for asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from bonafide.analysis import Analysis, Event, ServedModel
from bonafide.calls import Attempts, RetryPolicy, attempted
from bonafide.connection import DEFAULT_ADDRESS, Credentials, Target
from bonafide.errors import (
    AccessDeniedError,
    AnalysisFailedError,
    BadInputError,
    ClientError,
    ServerUnreachableError,
    from_rpc_error,
)
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
from bonafide.uploads import CHUNK_BYTES, Clip, LocalClip, Sent, Upload, Uploaded, Uri
from bonafide.v1 import analysis_pb2, analysis_pb2_grpc, upload_pb2, upload_pb2_grpc

__all__ = [
    "DEFAULT_ADDRESS",
    "DEFAULT_TIMEOUT_SECONDS",
    "AccessDeniedError",
    "AnalysisFailedError",
    "BadInputError",
    "Client",
    "ClientError",
    "ServerUnreachableError",
]

DEFAULT_TIMEOUT_SECONDS = 600.0
SMALL_TIMEOUT_SECONDS = 10.0
Answer = TypeVar("Answer")


class Client:
    """A connection to the gateway, safe to share between threads; a context manager.

    >>> from bonafide import Client, ClientError
    >>> with Client() as client:
    ...     try:
    ...         analysis = client.analyze("clip.mp4", timeout=60)
    ...     except ClientError as error:
    ...         print(error.code, error.reason, error.violations, error.retry_after_seconds)
    ...     else:
    ...         print(analysis.verdict, *analysis.reasons)
    AUTHENTIC BELOW_AUTHENTIC_THRESHOLD

    Every call has a deadline, and is tried again within it when that is safe and may help (see
    ``RetryPolicy``).

    Args:
        address: HOST:PORT, any gRPC name (``dns:///gateway:8500`` spreads calls over all its addresses), or
            several IP:PORT; ``$BONAFIDE_SERVER`` or 127.0.0.1:8500 when None. Calls go in turn to those that
            say they are healthy.
        credentials: TLS, API key and token; plain text to this machine when None.
        retries: how often and how patiently calls are tried.
        chunk_bytes: bytes a message of an upload, up to 1 MiB; ``docs/upload.md`` has what sizes cost.

    Raises:
        ValueError: the address is of another machine and there is no TLS.
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
            self._channel = grpc.insecure_channel(self._target.address, self._target.options())
        else:
            self._channel = grpc.secure_channel(self._target.address, secret, self._target.options())
        self._stub = analysis_pb2_grpc.AnalysisServiceStub(self._channel)
        self._uploads = upload_pb2_grpc.UploadServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way end."""
        self._channel.close()

    def analyze(
        self,
        clip: Clip,
        *,
        on_event: Callable[[Event], None] | None = None,
        on_sent: Sent | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        **options: Unpack[Options],
    ) -> Analysis:
        """Send one clip and wait for its analysis.

        Args:
            clip: path of a video, sound or picture, its bytes, a binary file open at its first byte, what
                ``upload`` answered, or a ``Uri``.
            on_event: called with progress and with each branch's report as they arrive.
            on_sent: called with the bytes sent and those in all (0: unknown), on another thread.
            timeout: seconds the whole call may take, retries included.
            options: see ``Options``.

        Raises:
            BadInputError: the file cannot be read, or the server refuses it.
            AccessDeniedError: the credentials do not allow it.
            ServerUnreachableError: the server cannot be reached.
            AnalysisFailedError: the server could not finish.
        """
        analysis = None
        for event in self.events(clip, on_sent=on_sent, timeout=timeout, **options):
            if isinstance(event, Analysis):
                analysis = event
            elif on_event is not None:
                on_event(event)
        return finished(analysis)

    def events(
        self,
        clip: Clip,
        *,
        on_sent: Sent | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        **options: Unpack[Options],
    ) -> Iterator[Event | Analysis]:
        """The same as an iterator whose last item is the analysis; leaving it early cancels the call.

        A try that fails after its first events is begun anew, and those events come again.
        """
        with (
            attempted("analyze", self._retries, timeout) as attempts,
            Upload(clip, on_sent, self._chunk_bytes) as upload,
        ):
            first = options_message(options, upload)
            while True:
                try:
                    yield from self._events_once(first, upload, attempts)
                except ClientError as error:
                    error.request_id = first.request_id
                    if not upload.repeatable:
                        raise
                    time.sleep(attempts.pause_after(error))
                else:
                    return

    def upload(
        self, clip: LocalClip, *, on_sent: Sent | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS
    ) -> Uploaded:
        """Leave a large file at the server, to be analysed by ``analyze`` or ``batch`` later.

        A dropped connection costs what was on its way: sending goes on from where the server has got to.

        Raises:
            BadInputError: the file cannot be read, its size is unknown, or the server refuses it.
            ClientError: as for ``analyze``.
        """
        with (
            attempted("upload", self._retries, timeout) as attempts,
            Upload(clip, on_sent, self._chunk_bytes) as upload,
        ):
            state = self._call(self._uploads.CreateUpload, new_upload(upload), attempts).upload
            while not state.complete:
                before = state.received_bytes
                state = self._send_on(state, upload, attempts)
                if state.received_bytes > before:
                    attempts.progressed()
        return Uploaded(state.upload_id, state.size_bytes)

    def delete_upload(self, uploaded: Uploaded, *, timeout: float = SMALL_TIMEOUT_SECONDS) -> None:
        """Let go of an uploaded file before it expires."""
        request = upload_pb2.DeleteUploadRequest(upload_id=uploaded.upload_id)
        with attempted("delete_upload", self._retries, timeout) as attempts:
            self._call(self._uploads.DeleteUpload, request, attempts)

    def batch(
        self,
        clips: Sequence[Uploaded | Uri],
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        **options: Unpack[Options],
    ) -> Iterator[BatchResult]:
        """Analyse several clips that need not be sent; answers each as it ends, in no order.

        A try that is cut off is followed by one for what is still to be answered.
        """
        with attempted("batch", self._retries, timeout) as attempts:
            batch = Batch([batch_item(clip, options) for clip in clips])
            while not batch.whole:
                call = self._stub.BatchAnalyze(
                    batch.request(), timeout=attempts.begin(), metadata=self._metadata(attempts)
                )
                try:
                    for response in call:
                        yield batch.result(response)
                        attempts.progressed()
                    batch.ended()
                except grpc.RpcError as error:
                    time.sleep(attempts.pause_after(self._error(error)))
                finally:
                    call.cancel()

    def models(self, *, timeout: float = SMALL_TIMEOUT_SECONDS) -> list[ServedModel]:
        """The models in service, by name.

        Raises:
            ServerUnreachableError: the server cannot be reached.
            AnalysisFailedError: the server could not answer.
        """
        with attempted("models", self._retries, timeout) as attempts:
            return models_from_proto(self._call(self._stub.ListModels, analysis_pb2.ListModelsRequest(), attempts))

    def _events_once(
        self, first: analysis_pb2.AnalyzeOptions, upload: Upload, attempts: Attempts
    ) -> Iterator[Event | Analysis]:
        timeout, metadata = attempts.begin(), self._metadata(attempts)
        call: Any
        if isinstance(upload.clip, Uri):
            request = analysis_pb2.AnalyzeUriRequest(uri=upload.clip.uri, options=first)
            call = self._stub.AnalyzeUri(request, timeout=timeout, metadata=metadata)
        else:
            call = self._stub.Analyze(requests(first, upload.chunks()), timeout=timeout, metadata=metadata)
        try:
            for response in call:
                event = event_from_proto(response)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            upload.raise_failure()
            raise self._error(error) from error
        finally:
            call.cancel()

    def _send_on(self, state: upload_pb2.Upload, upload: Upload, attempts: Attempts) -> upload_pb2.Upload:
        """Send what is missing; where that fails, ask how far it got."""
        metadata = self._metadata(attempts)
        try:
            return kept(self._uploads.SendChunks(stretch(state, upload), timeout=attempts.begin(), metadata=metadata))
        except grpc.RpcError as error:
            upload.raise_failure()
            time.sleep(attempts.pause_after(resumable(self._error(error))))
        request = upload_pb2.GetUploadRequest(upload_id=state.upload_id)
        return self._call(self._uploads.GetUpload, request, attempts).upload

    def _call(self, method: Callable[..., Answer], request: Any, attempts: Attempts) -> Answer:  # noqa: ANN401
        """One unary call, tried again where that helps."""
        while True:
            try:
                return method(request, timeout=attempts.begin(), metadata=self._metadata(attempts))
            except grpc.RpcError as error:
                time.sleep(attempts.pause_after(self._error(error)))

    def _metadata(self, attempts: Attempts) -> Headers:
        """Headers of one try."""
        return (*self._target.credentials.metadata(), *attempts.headers)

    def _error(self, error: grpc.RpcError) -> ClientError:
        return from_rpc_error(error, self._target.address)
