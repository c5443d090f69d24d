"""A real server on loopback: readiness that means it, errors as typed statuses, a drain that ends calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.channels import ServiceChannel, open_channel
from services.common.errors import BonafideError, DeadlineError, UnavailableError
from services.common.health import LIVENESS
from services.common.inference import EmbeddedEngine
from services.common.model_metrics import ModelMetrics
from services.common.model_service import models_ready
from services.common.models import ModelRepository
from services.common.status import error_reason, from_rpc_error
from tests.common.serving import NAME, Running, always_ready, serving
from tests.common.test_models import make_model


@asynccontextmanager
async def connected(ready: Any = always_ready, **settings: Any) -> AsyncIterator[tuple[Running, ServiceChannel]]:
    async with (
        serving(ready, **settings) as running,
        open_channel(running.address, max_message_bytes=1 << 20) as channel,
    ):
        await asyncio.wait_for(channel.channel_ready(), 5)
        yield running, channel


async def wait_for_status(channel: grpc.aio.Channel, service: str, wanted: int) -> bool:
    stub = health_pb2_grpc.HealthStub(channel)
    for _ in range(100):
        response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        if response.status == wanted:
            return True
        await asyncio.sleep(0.03)
    return False


async def test_tampering_with_a_served_model_takes_readiness_away_but_not_liveness(tmp_path: Path) -> None:
    file = make_model(tmp_path)
    engine = EmbeddedEngine(ModelRepository(tmp_path))
    ready = models_ready(ModelRepository(tmp_path), engine, ModelMetrics.unscraped(), required=["m"])
    serving_status, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    async with connected(ready) as (_, channel):
        assert await wait_for_status(channel, NAME, serving_status)
        assert await wait_for_status(channel, "", serving_status)
        file.write_bytes(b"Weights")
        assert await wait_for_status(channel, NAME, not_serving)
        assert await wait_for_status(channel, LIVENESS, serving_status)
        file.write_bytes(b"weights")
        assert await wait_for_status(channel, NAME, serving_status)


async def test_errors_are_typed_and_the_unexpected_stays_private() -> None:
    async with connected() as (_, channel):
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as invalid:
            await stub.Fuse(fusion_pb2.FuseRequest(policy="invalid"), timeout=5)
        assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_reason(invalid.value) == "BAD_THING"
        with pytest.raises(grpc.aio.AioRpcError) as crash:
            await stub.Fuse(fusion_pb2.FuseRequest(policy="crash"), timeout=5)
        assert crash.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(crash.value.details())
        assert type(from_rpc_error(crash.value, "fusion")) is BonafideError


async def test_deadline_reaches_the_server_and_is_kept() -> None:
    async with connected() as (_, channel):
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        given = await stub.Fuse(fusion_pb2.FuseRequest(), timeout=2)
        assert 0 < given.probability < 2
        unlimited = await stub.Fuse(fusion_pb2.FuseRequest())
        assert unlimited.probability == 5.0
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stub.Fuse(fusion_pb2.FuseRequest(policy="slow"), timeout=0.05)
        assert isinstance(from_rpc_error(late.value, "fusion"), DeadlineError)


async def test_call_in_flight_survives_the_drain_and_later_ones_are_refused() -> None:
    async with connected() as (running, channel):
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        in_flight = stub.Fuse(fusion_pb2.FuseRequest(policy="slow"), timeout=5)
        await asyncio.sleep(0.1)
        running.stop.set()
        assert (await in_flight).probability > 0
        await asyncio.sleep(0.3)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=2)
        assert isinstance(from_rpc_error(refused.value, "fusion"), UnavailableError | DeadlineError)


async def test_an_unexpected_error_at_the_door_stays_private_too() -> None:
    async def admit(_: Any) -> None:
        raise ValueError("/secret/path")

    async with connected(admit=(admit,)) as (running, channel):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=5)
        assert refused.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(refused.value)
        assert running.servicer.calls == 0
