"""Composition of the visual service."""

from __future__ import annotations

import asyncio

import cv2

from bonafide.v1 import visual_pb2, visual_pb2_grpc
from services.common.admission import CallLimit
from services.common.inference import InferenceEngine
from services.common.model_metrics import ModelMetrics
from services.common.model_service import models_ready
from services.common.models import ModelRepository
from services.common.server import Check, Service, start
from services.common.telemetry import Telemetry
from services.visual.ensemble import read_ensemble
from services.visual.pipeline import OPTIONAL_MODELS, REQUIRED_MODELS, VisualPipeline
from services.visual.servicer import VisualServicer
from services.visual.settings import VisualSettings


def build(settings: VisualSettings) -> Service:
    """The service that these settings describe."""
    cv2.setNumThreads(1)  # its pool spins; our parallelism is across pictures
    telemetry = Telemetry("visual")
    metrics = ModelMetrics(telemetry)
    repository = settings.repository()
    engine = settings.open_engine(metrics)
    servicer = VisualServicer(VisualPipeline(engine, settings, telemetry), settings.call_seconds)
    return Service(
        title="visual",
        names=(visual_pb2.DESCRIPTOR.services_by_name["VisualService"].full_name,),
        register=lambda server: visual_pb2_grpc.add_VisualServiceServicer_to_server(servicer, server),
        ready=_readiness(repository, engine, metrics),
        telemetry=telemetry,
        close=(engine.close,),
        admit=(CallLimit(settings.calls_at_once, settings.call_bytes_at_once).admit,),
    )


def _readiness(repository: ModelRepository, engine: InferenceEngine, metrics: ModelMetrics) -> Check:
    """Ready once every model is as its card says, those of the ensemble among them."""

    async def check() -> None:
        ensemble = await asyncio.to_thread(read_ensemble, repository)
        required = (*REQUIRED_MODELS, *ensemble.companions)
        await models_ready(repository, engine, metrics, required=required, optional=OPTIONAL_MODELS)()

    return check


if __name__ == "__main__":
    start(VisualSettings, build)
