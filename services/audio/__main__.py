"""Composition of the audio service."""

from __future__ import annotations

from bonafide.v1 import audio_pb2, audio_pb2_grpc
from services.audio.pipeline import AudioPipeline, verified_models
from services.audio.servicer import AudioServicer
from services.audio.settings import AudioSettings
from services.common.admission import CallLimit
from services.common.model_metrics import ModelMetrics
from services.common.rollout_plan import RolloutFile
from services.common.rollouts import Rollouts
from services.common.server import Service, start
from services.common.telemetry import Telemetry


def build(settings: AudioSettings) -> Service:
    """The service that these settings describe."""
    telemetry = Telemetry("audio")
    metrics = ModelMetrics(telemetry)
    repository = settings.repository()
    engine = settings.open_engine(metrics)
    rollouts = Rollouts(engine, repository, RolloutFile(settings.rollout_file), verified_models, metrics, telemetry)
    pipeline = AudioPipeline(engine, repository, settings.window_plan(), telemetry, rollouts)
    servicer = AudioServicer(pipeline, settings.call_seconds)
    return Service(
        title="audio",
        names=(audio_pb2.DESCRIPTOR.services_by_name["AudioService"].full_name,),
        register=lambda server: audio_pb2_grpc.add_AudioServiceServicer_to_server(servicer, server),
        ready=rollouts.ready,
        telemetry=telemetry,
        close=(rollouts.close, engine.close),
        admit=(CallLimit(settings.calls_at_once, settings.call_bytes_at_once).admit,),
    )


if __name__ == "__main__":
    start(AudioSettings, build)
