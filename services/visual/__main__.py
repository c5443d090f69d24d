"""Composition of the visual service."""

from __future__ import annotations

import cv2

from bonafide.v1 import visual_pb2, visual_pb2_grpc
from services.common.admission import CallLimit
from services.common.model_metrics import ModelMetrics
from services.common.rollout_plan import RolloutFile
from services.common.rollouts import Rollouts
from services.common.server import Service, start
from services.common.telemetry import Telemetry
from services.visual.pipeline import VisualPipeline, verified_models
from services.visual.servicer import VisualServicer
from services.visual.settings import VisualSettings


def build(settings: VisualSettings) -> Service:
    """The service that these settings describe."""
    cv2.setNumThreads(1)  # its pool spins; our parallelism is across pictures
    telemetry = Telemetry("visual")
    metrics = ModelMetrics(telemetry)
    repository = settings.repository()
    engine = settings.open_engine(metrics)
    rollouts = Rollouts(engine, repository, RolloutFile(settings.rollout_file), verified_models, metrics, telemetry)
    servicer = VisualServicer(VisualPipeline(engine, settings, telemetry, rollouts), settings.call_seconds)
    return Service(
        title="visual",
        names=(visual_pb2.DESCRIPTOR.services_by_name["VisualService"].full_name,),
        register=lambda server: visual_pb2_grpc.add_VisualServiceServicer_to_server(servicer, server),
        ready=rollouts.ready,
        telemetry=telemetry,
        close=(rollouts.close, engine.close),
        admit=(CallLimit(settings.calls_at_once, settings.call_bytes_at_once).admit,),
    )


if __name__ == "__main__":
    start(VisualSettings, build)
