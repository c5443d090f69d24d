"""Composition of the fusion service."""

from __future__ import annotations

import asyncio

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.admission import CallLimit
from services.common.model_metrics import ModelMetrics
from services.common.rollout_plan import RolloutFile
from services.common.rollouts import Rollouts
from services.common.server import Check, Service, start
from services.common.telemetry import Telemetry
from services.fusion.pipeline import FusionPipeline
from services.fusion.servicer import FusionServicer
from services.fusion.settings import FusionSettings
from services.fusion.store import HeadStore
from services.fusion.synchrony import Synchrony, verified_models


def build(settings: FusionSettings) -> Service:
    """The service that these settings describe."""
    telemetry = Telemetry("fusion")
    metrics = ModelMetrics(telemetry)
    repository = settings.repository()
    engine = settings.open_engine(metrics)
    store = HeadStore(settings.heads, settings.policies, settings.default_policy, repository)
    rollouts = Rollouts(engine, repository, RolloutFile(settings.rollout_file), verified_models, metrics, telemetry)
    pipeline = FusionPipeline(store, Synchrony(engine, repository, rollouts), telemetry, rollouts)
    servicer = FusionServicer(pipeline, settings.call_seconds)
    return Service(
        title="fusion",
        names=(fusion_pb2.DESCRIPTOR.services_by_name["FusionService"].full_name,),
        register=lambda server: fusion_pb2_grpc.add_FusionServiceServicer_to_server(servicer, server),
        ready=_readiness(store, rollouts, metrics),
        telemetry=telemetry,
        close=(rollouts.close, engine.close),
        admit=(CallLimit(settings.calls_at_once, settings.call_bytes_at_once).admit,),
    )


def _readiness(store: HeadStore, rollouts: Rollouts, metrics: ModelMetrics) -> Check:
    """Ready once heads are loaded that may read the scores of the stable models, and the network of SYNC answers."""

    async def check() -> None:
        await rollouts.ready()
        await asyncio.to_thread(store.refresh, rollouts.stable)
        metrics.at_work(store.at_work(), "heads")

    return check


if __name__ == "__main__":
    start(FusionSettings, build)
