"""UploadService over gRPC: convert, call, convert back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import timestamp_pb2

from bonafide.v1 import upload_pb2, upload_pb2_grpc
from services.common.callers import current_caller
from services.common.errors import InvalidInputError
from services.common.status import remaining_seconds, unary_errors
from services.gateway.admission import Admission
from services.gateway.clock import Clock
from services.gateway.converters import MAX_CHUNK_BYTES
from services.gateway.upload_pace import UploadPace, keep_pace
from services.gateway.uploads import Upload, UploadStore


class UploadServicer(upload_pb2_grpc.UploadServiceServicer):
    """Takes files in pieces."""

    def __init__(self, uploads: UploadStore, admission: Admission, pace: UploadPace, call_seconds: float) -> None:
        self._uploads = uploads
        self._admission = admission
        self._pace = pace
        self._call_seconds = call_seconds

    @unary_errors
    async def CreateUpload(  # noqa: N802 - the contract's name
        self,
        request: upload_pb2.CreateUploadRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> upload_pb2.CreateUploadResponse:
        """See the contract."""
        caller = current_caller().name
        upload = await asyncio.to_thread(self._uploads.create, caller, request.size_bytes, request.sha256)
        return upload_pb2.CreateUploadResponse(upload=_to_proto(upload))

    @unary_errors
    async def GetUpload(  # noqa: N802 - the contract's name
        self,
        request: upload_pb2.GetUploadRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> upload_pb2.GetUploadResponse:
        """See the contract."""
        upload = await asyncio.to_thread(self._uploads.find, current_caller().name, request.upload_id)
        return upload_pb2.GetUploadResponse(upload=_to_proto(upload))

    @unary_errors
    async def SendChunks(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[upload_pb2.SendChunksRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> upload_pb2.SendChunksResponse:
        """See the contract."""
        clock = Clock(remaining_seconds(context, default=self._call_seconds))
        with self._admission.sending(current_caller().name):
            upload = await clock.within(self._append(aiter(request_iterator)))
        return upload_pb2.SendChunksResponse(upload=_to_proto(upload))

    @unary_errors
    async def DeleteUpload(  # noqa: N802 - the contract's name
        self,
        request: upload_pb2.DeleteUploadRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> upload_pb2.DeleteUploadResponse:
        """See the contract."""
        await asyncio.to_thread(self._uploads.delete, current_caller().name, request.upload_id)
        return upload_pb2.DeleteUploadResponse()

    async def _append(self, messages: AsyncIterator[upload_pb2.SendChunksRequest]) -> Upload:
        first = await anext(messages, None)
        if first is None or first.WhichOneof("payload") != "start":
            raise InvalidInputError("the first message of a stretch must be its start", reason="START_MISSING")
        caller, start = current_caller().name, first.start
        with await asyncio.to_thread(self._uploads.append, caller, start.upload_id, start.offset) as stretch:
            async for chunk in keep_pace(_chunks(messages), self._pace):
                await asyncio.to_thread(stretch.write, chunk)
            await asyncio.to_thread(stretch.finish)
        return await asyncio.to_thread(self._uploads.find, caller, start.upload_id)


async def _chunks(messages: AsyncIterator[upload_pb2.SendChunksRequest]) -> AsyncIterator[bytes]:
    async for message in messages:
        if message.WhichOneof("payload") != "chunk" or not 0 < len(message.chunk) <= MAX_CHUNK_BYTES:
            raise InvalidInputError("after the start come chunks of 1 byte to 1 MiB", reason="INVALID_CHUNK")
        yield message.chunk


def _to_proto(upload: Upload) -> upload_pb2.Upload:
    expires = timestamp_pb2.Timestamp()
    expires.FromMilliseconds(round(upload.expires * 1000))
    return upload_pb2.Upload(
        upload_id=upload.upload_id,
        size_bytes=upload.size_bytes,
        received_bytes=upload.received_bytes,
        complete=upload.complete,
        expire_time=expires,
    )
