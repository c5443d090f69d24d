"""A gateway that does as it is told, over real gRPC: for what a healthy one cannot be made to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from bonafide.v1 import analysis_pb2, analysis_pb2_grpc, evidence_pb2, fusion_pb2, upload_pb2, upload_pb2_grpc

SERVICE = "bonafide.v1.AnalysisService"


def status(code: grpc.StatusCode, message: str, *details: Any) -> Any:
    packed = []
    for detail in details:
        each = any_pb2.Any()
        each.Pack(detail)
        packed.append(each)
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message, details=packed))


def info(reason: str) -> Any:
    return error_details_pb2.ErrorInfo(reason=reason, domain="bonafide")


def retry_info(seconds: float) -> Any:
    advice = error_details_pb2.RetryInfo()
    advice.retry_delay.FromMilliseconds(int(seconds * 1000))
    return advice


def answer(request_id: str) -> analysis_pb2.Analysis:
    return analysis_pb2.Analysis(
        request_id=request_id,
        verdict=fusion_pb2.VERDICT_INCONCLUSIVE,
        reasons=[evidence_pb2.REASON_CODE_TOO_LITTLE_EVIDENCE],
    )


@dataclass
class Call:
    """What one try looked like from the server."""

    options: analysis_pb2.AnalyzeOptions | None
    data: bytes
    metadata: dict[str, str | bytes]
    seconds_left: float
    arrived: float = field(default_factory=time.monotonic)


@dataclass
class ScriptedGateway(analysis_pb2_grpc.AnalysisServiceServicer):
    """Refuses with each of ``refusals`` in turn, then answers; remembers every try.

    A refusal is a status, or a function that writes one into the context. ``pause`` is waited before the answer.
    """

    refusals: list[Any] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    pause: float = 0.0
    read_before_refusal: bool = True
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def Analyze(self, requests: Any, context: Any) -> AsyncIterator[analysis_pb2.AnalyzeResponse]:  # noqa: N802
        call = Call(None, b"", dict(context.invocation_metadata()), context.time_remaining())
        self.calls.append(call)
        self.asked.set()
        try:
            if self.read_before_refusal or not self.refusals:
                async for request in requests:
                    if request.HasField("options"):
                        call.options = request.options
                    call.data += request.chunk
            if await self._refused(context):
                return
            yield analysis_pb2.AnalyzeResponse(
                progress=analysis_pb2.Progress(stage=analysis_pb2.STAGE_ANALYZING, percent=50)
            )
            await asyncio.sleep(self.pause)
            assert call.options is not None
            yield analysis_pb2.AnalyzeResponse(analysis=answer(call.options.request_id))
        except BaseException:  # cancelled, or the stream of requests broke off
            self.cancelled.set()
            raise

    async def AnalyzeUri(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.calls.append(Call(request.options, request.uri.encode(), {}, context.time_remaining()))
        if await self._refused(context):
            return
        yield analysis_pb2.AnalyzeUriResponse(analysis=answer(request.options.request_id))

    async def BatchAnalyze(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Answers from the last item on; each of ``refusals`` cuts a try short after its first answer."""
        self.batches.append([item.options.request_id for item in request.items])
        for index in reversed(range(len(request.items))):
            item = request.items[index]
            response = analysis_pb2.BatchAnalyzeResponse(index=index, request_id=item.options.request_id)
            if item.uri.endswith("bad"):
                response.status.code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
                response.status.message = "no"
                response.status.details.add().Pack(info("UNSUPPORTED_MEDIA"))
            else:
                response.analysis.CopyFrom(answer(item.options.request_id))
            yield response
            if await self._refused(context):
                return

    async def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        self.calls.append(Call(None, b"", dict(context.invocation_metadata()), context.time_remaining()))
        await self._refused(context)
        return analysis_pb2.ListModelsResponse(models=[analysis_pb2.ModelCard(name="m", version="1")])

    async def _refused(self, context: Any) -> bool:
        if not self.refusals:
            return False
        refusal = self.refusals.pop(0)
        if callable(refusal):
            refusal(context)
            return True
        await context.abort_with_status(refusal)
        raise AssertionError("abort returned")


@dataclass
class ScriptedUploads(upload_pb2_grpc.UploadServiceServicer):
    """Keeps uploads in memory; cuts the line after each of ``cuts`` bytes of a stretch, once each."""

    cuts: list[int] = field(default_factory=list)
    kept: dict[str, bytearray] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)

    def state(self, upload_id: str) -> upload_pb2.Upload:
        size, received = self.sizes[upload_id], len(self.kept[upload_id])
        return upload_pb2.Upload(
            upload_id=upload_id, size_bytes=size, received_bytes=received, complete=size == received
        )

    async def CreateUpload(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        upload_id = f"{len(self.kept):032x}"
        self.kept[upload_id], self.sizes[upload_id] = bytearray(), request.size_bytes
        return upload_pb2.CreateUploadResponse(upload=self.state(upload_id))

    async def GetUpload(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return upload_pb2.GetUploadResponse(upload=self.state(request.upload_id))

    async def SendChunks(self, requests: Any, context: Any) -> Any:  # noqa: N802
        upload_id, cut, taken = "", self.cuts.pop(0) if self.cuts else None, 0
        async for request in requests:
            if request.HasField("start"):
                upload_id = request.start.upload_id
                self.offsets.append(request.start.offset)
                if request.start.offset != len(self.kept[upload_id]):
                    await context.abort_with_status(status(grpc.StatusCode.OUT_OF_RANGE, "no", info("WRONG_OFFSET")))
            self.kept[upload_id] += request.chunk
            taken += len(request.chunk)
            if cut is not None and taken >= cut:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        return upload_pb2.SendChunksResponse(upload=self.state(upload_id))

    async def DeleteUpload(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        del self.kept[request.upload_id]
        return upload_pb2.DeleteUploadResponse()


@asynccontextmanager
async def serving(
    servicer: ScriptedGateway,
    *,
    healthy: bool = True,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[Any] = (),
    address: str = "127.0.0.1:0",
    uploads: ScriptedUploads | None = None,
) -> AsyncIterator[str]:
    """Serve it on a free port; answers HOST:PORT."""
    server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0)])
    analysis_pb2_grpc.add_AnalysisServiceServicer_to_server(servicer, server)
    upload_pb2_grpc.add_UploadServiceServicer_to_server(uploads or ScriptedUploads(), server)
    state = health.aio.HealthServicer()
    serving_status = health_pb2.HealthCheckResponse.SERVING if healthy else health_pb2.HealthCheckResponse.NOT_SERVING
    await state.set(SERVICE, serving_status)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    host = address.rpartition(":")[0]
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield f"{host}:{port}"
    finally:
        await server.stop(0)
