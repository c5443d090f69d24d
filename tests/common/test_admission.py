"""A service at its limit: what it refuses, when, with what advice, and what it never refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.admission import MESSAGE_BYTES_KEY, CallLimit
from services.common.channels import open_channel
from services.common.errors import ResourceExhaustedError
from services.common.server import Service, ServiceProcess
from services.common.settings import ServiceSettings
from services.common.status import from_rpc_error, unary_errors
from services.common.telemetry import Telemetry
from tests.gateway.test_service import free_address

NAME = "bonafide.v1.FusionService"


class Fusion(fusion_pb2_grpc.FusionServiceServicer):
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun = 0

    @unary_errors
    async def Fuse(self, request: Any, context: Any) -> fusion_pb2.FuseResponse:  # noqa: N802, ARG002
        self.begun += 1
        await self.go_on.wait()
        return fusion_pb2.FuseResponse()


async def ready() -> None:
    return


@asynccontextmanager
async def serving(fusion: Fusion, limit: CallLimit) -> AsyncIterator[grpc.aio.Channel]:
    service = Service(
        "fusion",
        [NAME],
        lambda server: fusion_pb2_grpc.add_FusionServiceServicer_to_server(fusion, server),
        ready,
        Telemetry("fusion"),
        admit=(limit.admit,),
    )
    settings = ServiceSettings(listen=free_address(), drain_seconds=0.1, drain_notice_seconds=0.0)
    stop = asyncio.Event()
    task = asyncio.create_task(ServiceProcess(service, settings).serve(stop))
    async with open_channel(settings.listen, max_message_bytes=1 << 20) as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
        try:
            yield channel
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)


async def until(count: int, limit: CallLimit) -> None:
    for _ in range(10_000):
        if limit.state.calls == count:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"there are never {count} calls")


def declared(size: int | str) -> tuple[tuple[str, str], ...]:
    return ((MESSAGE_BYTES_KEY, str(size)),)


async def test_calls_beyond_the_limit_are_refused_with_advice_and_health_never_is() -> None:
    fusion, limit = Fusion(), CallLimit(calls=2, message_bytes=1 << 20)
    async with serving(fusion, limit) as channel:
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        calls = [asyncio.ensure_future(stub.Fuse(fusion_pb2.FuseRequest(), timeout=30)) for _ in range(2)]
        await until(2, limit)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=10)
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=10)).status
        error = from_rpc_error(refused.value, "it")
        assert isinstance(error, ResourceExhaustedError)
        assert error.reason == "CALLS_FULL"
        assert error.retry_after_seconds is not None
        assert "grpc-retry-pushback-ms" in {key for key, _ in refused.value.trailing_metadata() or ()}
        fusion.go_on.set()
        await asyncio.gather(*calls)
        await until(0, limit)
        await stub.Fuse(fusion_pb2.FuseRequest(), timeout=10)
    assert (fusion.begun, limit.state.refused) == (3, 1)


async def test_a_call_that_is_cancelled_or_late_gives_its_place_back() -> None:
    fusion, limit = Fusion(), CallLimit(calls=1, message_bytes=1 << 20)
    async with serving(fusion, limit) as channel:
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        call = stub.Fuse(fusion_pb2.FuseRequest(), timeout=30)
        await until(1, limit)
        call.cancel()
        await until(0, limit)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=0.2)
        await until(0, limit)


async def test_an_upload_that_never_sends_its_message_is_counted_and_let_go() -> None:
    fusion, limit = Fusion(), CallLimit(calls=1, message_bytes=1 << 20)
    async with serving(fusion, limit) as channel:
        silent = channel.stream_unary(f"/{NAME}/Fuse")()
        await until(1, limit)
        assert fusion.begun == 0
        silent.cancel()
        await until(0, limit)


async def test_messages_that_are_too_large_together_are_refused_but_one_always_fits() -> None:
    fusion, limit = Fusion(), CallLimit(calls=9, message_bytes=1000)
    async with serving(fusion, limit) as channel:
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        first = asyncio.ensure_future(stub.Fuse(fusion_pb2.FuseRequest(), timeout=30, metadata=declared(5000)))
        await until(1, limit)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=10, metadata=declared(1))
        assert from_rpc_error(refused.value, "it").reason == "MEMORY_FULL"
        fusion.go_on.set()
        await first
        for nonsense in ("", "-1", "1e9", "9" * 400, "x"):
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=10, metadata=declared(nonsense))
        await until(0, limit)
        assert limit.state.message_bytes == 0
