"""Composition of the gateway."""

from __future__ import annotations

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from bonafide.v1 import (
    analysis_pb2,
    analysis_pb2_grpc,
    audio_pb2,
    fusion_pb2,
    upload_pb2,
    upload_pb2_grpc,
    visual_pb2,
)
from services.common.admission import CallLimit
from services.common.channels import open_channel
from services.common.models import ModelRepository
from services.common.rollout_plan import RolloutFile
from services.common.server import Service, start
from services.common.telemetry import Telemetry
from services.gateway.admission import Admission
from services.gateway.batch import Batches
from services.gateway.breaker import CircuitBreaker
from services.gateway.clients import AudioClient, FusionClient, Peer, VisualClient, check_ready
from services.gateway.decode_pool import DecodePool
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.reception import Reception
from services.gateway.sampling import SamplingPlan
from services.gateway.served_models import ModelFingerprint, ServedModels
from services.gateway.servicer import AnalysisServicer
from services.gateway.settings import GatewaySettings
from services.gateway.sources import Sources
from services.gateway.sweeping import keep_swept
from services.gateway.upload_servicer import UploadServicer


def build(settings: GatewaySettings) -> Service:
    """The service that these settings describe."""
    telemetry = Telemetry("gateway")
    metrics = GatewayMetrics(telemetry)
    visual, audio, fusion = _peers(settings)
    plan = SamplingPlan()
    decoder = DecodePool(settings.decode_workers, plan, settings.limits())
    fusing = FusionClient(fusion, settings.fusion_hedge_seconds)
    pipeline = Pipeline(decoder, VisualClient(visual), AudioClient(audio), fusing, settings.allowances())
    models = ServedModels(ModelRepository(settings.model_repository), RolloutFile(settings.rollout_file))
    admission = Admission(settings.admission_rules(plan))
    metrics.watch(admission, {"visual": visual.breaker, "audio": audio.breaker, "fusion": fusion.breaker})
    reception = Reception(
        pipeline,
        admission,
        settings.open_answers(),
        settings.open_request_ids(),
        ModelFingerprint(models, settings.readiness_interval_seconds),
        metrics,
        settings.upload_limits(),
    )
    uploads = settings.upload_store()
    servicer = AnalysisServicer(
        reception,
        Batches(reception, metrics, settings.batch_limits()),
        Sources(uploads, settings.fetcher()),
        models,
        settings.call_seconds,
    )

    taking = UploadServicer(uploads, admission, settings.upload_pace(), settings.call_seconds)

    def register(server: grpc.aio.Server) -> None:
        analysis_pb2_grpc.add_AnalysisServiceServicer_to_server(servicer, server)
        upload_pb2_grpc.add_UploadServiceServicer_to_server(taking, server)

    return Service(
        title="gateway",
        names=(
            analysis_pb2.DESCRIPTOR.services_by_name["AnalysisService"].full_name,
            upload_pb2.DESCRIPTOR.services_by_name["UploadService"].full_name,
        ),
        register=register,
        ready=lambda: check_ready(fusion, (visual, audio)),
        telemetry=telemetry,
        admit=(
            settings.authentication().admit,
            CallLimit(settings.calls_at_once, settings.memory_bytes).admit,
        ),
        close=(decoder.close, visual.close, audio.close, fusion.close),
        background=(lambda: keep_swept(uploads, settings.upload_sweep_seconds),),
    )


def _peers(settings: GatewaySettings) -> tuple[Peer, Peer, Peer]:
    """Connections to the visual, audio and fusion services."""
    certificates = settings.peer_certificates()

    def peer(title: str, address: str, server_name: str, service: ServiceDescriptor) -> Peer:
        channel = open_channel(
            address,
            max_message_bytes=settings.max_message_bytes,
            service=service.full_name,
            certificates=certificates,
            server_name=server_name,
        )
        return Peer(title, channel, CircuitBreaker(title, settings.breaker_rule()))

    visual, audio, fusion = (
        page.DESCRIPTOR.services_by_name[name]
        for page, name in ((visual_pb2, "VisualService"), (audio_pb2, "AudioService"), (fusion_pb2, "FusionService"))
    )
    return (
        peer("the visual service", settings.visual_address, settings.visual_server_name, visual),
        peer("the audio service", settings.audio_address, settings.audio_server_name, audio),
        peer("the fusion service", settings.fusion_address, settings.fusion_server_name, fusion),
    )


if __name__ == "__main__":
    start(GatewaySettings, build)
