"""Composition of the visual service."""

from __future__ import annotations

import cv2

from bonafide.v1 import visual_pb2, visual_pb2_grpc
from services.common.server import Service, models_ready, run
from services.visual.pipeline import OPTIONAL_MODELS, REQUIRED_MODELS, VisualPipeline
from services.visual.servicer import VisualServicer
from services.visual.settings import VisualSettings


def build(settings: VisualSettings) -> Service:
    """The service that these settings describe."""
    cv2.setNumThreads(1)  # its pool spins; our parallelism is across pictures
    repository = settings.repository()
    engine = settings.open_engine()
    servicer = VisualServicer(VisualPipeline(engine, settings), settings.call_seconds)
    return Service(
        title="visual",
        names=(visual_pb2.DESCRIPTOR.services_by_name["VisualService"].full_name,),
        register=lambda server: visual_pb2_grpc.add_VisualServiceServicer_to_server(servicer, server),
        ready=models_ready(repository, engine, required=REQUIRED_MODELS, optional=OPTIONAL_MODELS),
        close=(engine.close,),
    )


if __name__ == "__main__":
    options = VisualSettings()
    run(build(options), options)
