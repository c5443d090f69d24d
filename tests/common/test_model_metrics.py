"""Calls to models as their client counts them, against a server that refuses, hangs and answers as it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import BonafideError, DeadlineError, ModelNotDeployedError
from services.common.inference import EmbeddedEngine, TritonEngine, TritonLimits
from services.common.model_metrics import ModelMetrics
from services.common.model_service import models_ready
from services.common.models import ModelRepository
from services.common.telemetry import (
    MODEL_CALL_DURATION,
    MODEL_CALLS,
    MODEL_INFO,
    MODEL_REJECTIONS,
    Metric,
    Telemetry,
)
from tests.common.test_server import make_model

QUEUE_FULL = (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
BROKEN = (grpc.StatusCode.INTERNAL, "boom")
INPUTS = {"pixels": np.zeros((1, 2), np.uint8)}


@dataclass
class Scripted(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Fails with what is scripted, one after the other, then answers, or never does."""

    failures: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)
    hangs: bool = False

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.hangs:
            await asyncio.sleep(600)
        if self.failures:
            await context.abort(*self.failures.pop(0))
        return service_pb2.ModelInferResponse(model_name=request.model_name)


@asynccontextmanager
async def engine_of(servicer: Scripted) -> AsyncIterator[tuple[TritonEngine, Telemetry]]:
    server, telemetry = grpc.aio.server(), Telemetry("visual")
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    engine = TritonEngine(address, limits=TritonLimits(shared_regions=0), metrics=ModelMetrics(telemetry))
    try:
        yield engine, telemetry
    finally:
        await engine.close()
        await server.stop(None)


def read(telemetry: Telemetry, metric: Metric, suffix: str = "", **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(metric.name + suffix, labels)


async def test_a_full_queue_counts_as_often_as_it_refused_and_the_call_once() -> None:
    async with engine_of(Scripted([QUEUE_FULL, QUEUE_FULL])) as (engine, telemetry):
        await engine.infer("m", INPUTS, timeout=10)
    assert read(telemetry, MODEL_REJECTIONS, model="m", reason="MODEL_QUEUE_FULL") == 2
    assert read(telemetry, MODEL_CALLS, model="m", code="OK") == 1
    assert read(telemetry, MODEL_CALL_DURATION, "_count", model="m") == 1


async def test_calls_are_counted_by_how_they_end() -> None:
    servicer = Scripted([BROKEN])
    async with engine_of(servicer) as (engine, telemetry):
        with pytest.raises(BonafideError):
            await engine.infer("m", INPUTS, timeout=10)
        servicer.hangs = True
        with pytest.raises(DeadlineError):
            await engine.infer("m", INPUTS, timeout=0.2)
        call = asyncio.create_task(engine.infer("m", INPUTS, timeout=10))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert read(telemetry, MODEL_REJECTIONS, model="m", reason="MODEL_FAILED") == 1
    codes = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "OK")
    assert [read(telemetry, MODEL_CALLS, model="m", code=code) for code in codes] == [1, 1, 1, None]
    assert read(telemetry, MODEL_CALL_DURATION, "_count", model="m") == 3


async def test_what_a_trial_asks_for_counts_apart() -> None:
    async with engine_of(Scripted([QUEUE_FULL])) as (engine, telemetry):
        with pytest.raises(BonafideError):
            await engine.infer("m", INPUTS, timeout=10, version="2", patient=False)
        await engine.infer("m", INPUTS, timeout=10, version="1")
    assert read(telemetry, MODEL_REJECTIONS, model="m/2", reason="MODEL_QUEUE_FULL") == 1
    assert read(telemetry, MODEL_CALLS, model="m/2", code="RESOURCE_EXHAUSTED") == 1
    assert read(telemetry, MODEL_CALLS, model="m", code="OK") == 1
    assert read(telemetry, MODEL_REJECTIONS, model="m", reason="MODEL_QUEUE_FULL") is None


async def test_an_embedded_engine_counts_the_same(tmp_path: Path) -> None:
    telemetry = Telemetry("audio")
    engine = EmbeddedEngine(ModelRepository(tmp_path), metrics=ModelMetrics(telemetry))
    with pytest.raises(ModelNotDeployedError):
        await engine.infer("none", INPUTS, timeout=1)
    assert read(telemetry, MODEL_CALLS, model="none", code="FAILED_PRECONDITION") == 1


async def test_the_models_at_work_are_those_that_were_verified_last(tmp_path: Path) -> None:
    file = make_model(tmp_path)
    telemetry, repository = Telemetry("audio"), ModelRepository(tmp_path)
    metrics = ModelMetrics(telemetry)
    ready = models_ready(repository, EmbeddedEngine(repository), metrics, required=["m"])
    await ready()
    card = repository.card("m")
    labels = {"model": "m", "version": card.version, "sha256": card.sha256}
    assert read(telemetry, MODEL_INFO, **labels) == 1
    file.write_bytes(b"altered")
    with pytest.raises(BonafideError):
        await ready()
    assert read(telemetry, MODEL_INFO, **labels) == 1  # what serves is what was loaded
