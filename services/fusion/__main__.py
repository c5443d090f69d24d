"""Composition of the fusion service."""

from __future__ import annotations

import asyncio

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.admission import CallLimit
from services.common.model_metrics import ModelMetrics
from services.common.model_service import models_ready
from services.common.server import Check, Service, start
from services.common.telemetry import Telemetry
from services.fusion.heads import head_set
from services.fusion.pipeline import FusionPipeline
from services.fusion.servicer import FusionServicer
from services.fusion.settings import FusionSettings
from services.fusion.store import HeadStore
from services.fusion.synchrony import SYNC_MODEL, Synchrony


def build(settings: FusionSettings) -> Service:
    """The service that these settings describe."""
    telemetry = Telemetry("fusion")
    metrics = ModelMetrics(telemetry)
    repository = settings.repository()
    engine = settings.open_engine(metrics)
    store = HeadStore(settings.heads, settings.policies, settings.default_policy, repository)
    pipeline = FusionPipeline(store, Synchrony(engine, repository), telemetry)
    servicer = FusionServicer(pipeline, settings.call_seconds)
    return Service(
        title="fusion",
        names=(fusion_pb2.DESCRIPTOR.services_by_name["FusionService"].full_name,),
        register=lambda server: fusion_pb2_grpc.add_FusionServiceServicer_to_server(servicer, server),
        ready=_readiness(
            store, settings, metrics, models_ready(repository, engine, metrics, required=(), optional=(SYNC_MODEL,))
        ),
        telemetry=telemetry,
        close=(engine.close,),
        admit=(CallLimit(settings.calls_at_once, settings.call_bytes_at_once).admit,),
    )


def _readiness(store: HeadStore, settings: FusionSettings, metrics: ModelMetrics, models: Check) -> Check:
    async def check() -> None:
        await asyncio.to_thread(store.refresh)
        metrics.at_work([await asyncio.to_thread(head_set, settings.heads)], "heads")
        await models()

    return check


if __name__ == "__main__":
    start(FusionSettings, build)
