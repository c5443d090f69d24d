"""A process from its first probe to its last signal, over real sockets."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.channels import open_channel
from services.common.errors import UnavailableError
from services.common.health import LIVENESS, READINESS, STARTUP
from tests.common.serving import NAME, free_address, serving
from tests.common.test_channels import is_serving, replica

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def health(channel: grpc.aio.Channel, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status)


def watch(channel: grpc.aio.Channel, name: str) -> Any:
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=30)


async def next_status(watching: AsyncIterator[Any]) -> int:
    return int((await asyncio.wait_for(anext(aiter(watching)), 10)).status)


async def test_a_stop_is_told_first_then_waited_for_and_loses_nothing() -> None:
    address, probes = free_address(), free_address()
    async with (
        replica(address, health_listen=probes, drain_notice_seconds=1.5) as process,
        open_channel(address, max_message_bytes=1 << 20) as channel,
        grpc.aio.insecure_channel(probes) as probe,
    ):
        await is_serving(address)
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        watching = watch(probe, READINESS)
        assert await next_status(watching) == SERVING
        in_flight = stub.Fuse(fusion_pb2.FuseRequest(policy="slow"), timeout=10)
        process.send_signal(signal.SIGTERM)
        assert await next_status(watching) == NOT_SERVING
        assert await health(probe, LIVENESS) == SERVING
        await stub.Fuse(fusion_pb2.FuseRequest(policy="slow"), timeout=10)  # of a caller who has not noticed yet
        await in_flight
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_a_second_signal_ends_it_at_once() -> None:
    address = free_address()
    async with (
        replica(address, drain_notice_seconds=600, drain_seconds=600) as process,
        open_channel(address, max_message_bytes=1 << 20) as channel,
    ):
        await is_serving(address)
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        hanging = stub.Fuse(fusion_pb2.FuseRequest(policy="hang"), timeout=60)
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await hanging


async def test_the_port_for_probes_carries_health_and_nothing_else() -> None:
    async with (
        serving(health_listen=free_address()) as running,
        grpc.aio.insecure_channel(running.settings.health_listen) as probe,
    ):
        await is_serving(running.address)
        assert [await health(probe, name) for name in ("", NAME, LIVENESS, READINESS, STARTUP)] == [SERVING] * 5
        with pytest.raises(grpc.aio.AioRpcError) as nameless:
            await health(probe, "other")
        assert nameless.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await fusion_pb2_grpc.FusionServiceStub(probe).Fuse(fusion_pb2.FuseRequest(), timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        # Nothing is written: the refusal may overtake a message, and then the client reports its own failure to send.
        hidden = reflection_pb2_grpc.ServerReflectionStub(probe).ServerReflectionInfo(timeout=5)
        assert await hidden.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_startup_is_remembered_when_readiness_goes() -> None:
    is_ready = asyncio.Event()

    async def ready() -> None:
        if not is_ready.is_set():
            raise UnavailableError("not yet")

    async with (
        serving(ready, health_listen=free_address()) as running,
        grpc.aio.insecure_channel(running.settings.health_listen) as probe,
    ):
        watching = watch(probe, READINESS)
        assert await next_status(watching) == NOT_SERVING
        assert await health(probe, STARTUP) == NOT_SERVING
        is_ready.set()
        assert await next_status(watching) == SERVING
        assert await health(probe, STARTUP) == SERVING
        is_ready.clear()
        assert await next_status(watching) == NOT_SERVING
        assert await health(probe, STARTUP) == SERVING


async def test_watchers_do_not_depend_on_each_other() -> None:
    is_ready = asyncio.Event()

    async def ready() -> None:
        if not is_ready.is_set():
            raise UnavailableError("not yet")

    async with serving(ready) as running, grpc.aio.insecure_channel(running.address) as channel:
        leaving, staying, strange = watch(channel, NAME), watch(channel, NAME), watch(channel, "other")
        assert [await next_status(each) for each in (leaving, staying, strange)] == [NOT_SERVING, NOT_SERVING, UNKNOWN]
        leaving.cancel()
        await asyncio.sleep(0.2)
        is_ready.set()
        assert await next_status(staying) == SERVING


def frame(kind: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + payload


async def test_a_flood_of_pings_is_cut_off_and_others_do_not_notice() -> None:
    async with serving() as running, open_channel(running.address, max_message_bytes=1 << 20) as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
        host, _, port = running.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4))
        writer.write(frame(6, bytes(8)) * 200)
        said = await asyncio.wait_for(reader.read(), 10)  # until the server closes
        assert b"too_many_pings" in said
        writer.close()
        await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=5)


async def test_connections_beyond_the_limit_are_closed_and_the_others_stay() -> None:
    async with (
        serving(max_connections=3) as running,
        open_channel(running.address, max_message_bytes=1 << 20) as channel,
    ):
        await asyncio.wait_for(channel.channel_ready(), 10)
        host, _, port = running.address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(6)]
        closed = [asyncio.create_task(reader.read()) for reader, _ in opened]
        await asyncio.wait(closed, timeout=3)
        assert sum(task.done() for task in closed) >= 3
        await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=5)
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*closed, return_exceptions=True)


async def test_oversized_metadata_is_refused_and_calls_beyond_the_streams_of_a_connection_wait() -> None:
    async with (
        serving(max_streams=4) as running,
        grpc.aio.insecure_channel(running.address) as channel,  # an ordinary client's limits
    ):
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=5, metadata=(("x-large", "x" * 40_000),))
        assert refused.value.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
        assert running.servicer.calls == 0
        hanging = [stub.Fuse(fusion_pb2.FuseRequest(policy="hang"), timeout=60) for _ in range(6)]
        for _ in range(4):
            await asyncio.wait_for(running.servicer.called.acquire(), 10)
        await asyncio.sleep(0.3)
        assert running.servicer.calls == 4
        for call in hanging:
            call.cancel()
