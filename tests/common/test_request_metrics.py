"""Calls are counted however they end, in flight while they last, and only under names that the service gave."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.errors import ResourceExhaustedError
from services.common.telemetry import REQUEST_DURATION, REQUESTS, REQUESTS_IN_FLIGHT, REQUESTS_REFUSED
from tests.common.serving import free_address, serving
from tests.common.test_channels import is_serving
from tests.common.test_exposition import scrape


async def measured(address: str) -> dict[str, dict[tuple[str, ...], float]]:
    """What is scraped, once the calls that were made have ended at the server too."""
    for _ in range(100):
        found = await scrape(address)
        if not found[REQUESTS_IN_FLIGHT.name][()]:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("calls never end")


async def test_calls_are_counted_by_method_and_by_how_they_end() -> None:
    async with serving(metrics_listen=free_address()) as running, grpc.aio.insecure_channel(running.address) as channel:
        await is_serving(running.address)
        before = (await scrape(running.settings.metrics_listen))[REQUESTS.name]
        assert before == {("OK", "Fuse"): 0}  # from the start, so that the first increase is one
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        await stub.Fuse(fusion_pb2.FuseRequest(), timeout=5)
        for policy, timeout in (("invalid", 5), ("crash", 5), ("hang", 0.3)):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Fuse(fusion_pb2.FuseRequest(policy=policy), timeout=timeout)
        hanging = stub.Fuse(fusion_pb2.FuseRequest(policy="hang"), timeout=60)
        for _ in range(5):
            await asyncio.wait_for(running.servicer.called.acquire(), 10)
        assert (await scrape(running.settings.metrics_listen))[REQUESTS_IN_FLIGHT.name][()] == 1
        hanging.cancel()
        found = await measured(running.settings.metrics_listen)
    assert found[REQUESTS.name] == {
        ("OK", "Fuse"): 1,
        ("INVALID_ARGUMENT", "Fuse"): 1,
        ("INTERNAL", "Fuse"): 1,
        ("DEADLINE_EXCEEDED", "Fuse"): 1,
        ("CANCELLED", "Fuse"): 1,
    }
    assert found[REQUESTS_REFUSED.name] == {("BAD_THING",): 1, ("INTERNAL",): 1}
    assert found[REQUEST_DURATION.name + "_count"] == {("Fuse",): 5}


async def test_what_the_door_refuses_counts_and_health_does_not() -> None:
    async def refuse(_: Any) -> None:
        raise ResourceExhaustedError("no", reason="CALLS_FULL")

    async with (
        serving(admit=(refuse,), metrics_listen=free_address()) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        await is_serving(running.address)
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError):
            await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=5)
        found = await measured(running.settings.metrics_listen)
    assert found[REQUESTS.name] == {("OK", "Fuse"): 0, ("RESOURCE_EXHAUSTED", "Fuse"): 1}
    assert found[REQUESTS_REFUSED.name] == {("CALLS_FULL",): 1}


async def test_methods_that_callers_make_up_become_one_label() -> None:
    async with serving(metrics_listen=free_address()) as running, grpc.aio.insecure_channel(running.address) as channel:
        await is_serving(running.address)
        for number in range(20):
            call = channel.unary_unary(f"/bonafide.v1.FusionService/Made{number}")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", timeout=5)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([question]), timeout=5)
        assert [answer async for answer in answers]
        found = await measured(running.settings.metrics_listen)
    assert found[REQUESTS.name] == {
        ("OK", "Fuse"): 0,
        ("OK", "ServerReflectionInfo"): 1,
        ("UNIMPLEMENTED", "other"): 20,
    }
