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

from bonafide.v1 import analysis_pb2, analysis_pb2_grpc, evidence_pb2, fusion_pb2

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
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

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


@asynccontextmanager
async def serving(
    servicer: ScriptedGateway,
    *,
    healthy: bool = True,
    credentials: grpc.ServerCredentials | None = None,
    interceptors: Sequence[Any] = (),
    address: str = "127.0.0.1:0",
) -> AsyncIterator[str]:
    """Serve it on a free port; answers HOST:PORT."""
    server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0)])
    analysis_pb2_grpc.add_AnalysisServiceServicer_to_server(servicer, server)
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
