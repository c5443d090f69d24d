"""Composition of the gateway."""

from __future__ import annotations

from bonafide.v1 import analysis_pb2, analysis_pb2_grpc
from services.common.models import ModelRepository
from services.common.server import Service, run
from services.gateway.clients import AudioClient, FusionClient, Peer, VisualClient, check_ready
from services.gateway.decode_pool import DecodePool
from services.gateway.pipeline import Pipeline
from services.gateway.reception import Reception
from services.gateway.sampling import SamplingPlan
from services.gateway.servicer import AnalysisServicer
from services.gateway.settings import GatewaySettings


def build(settings: GatewaySettings) -> Service:
    """The service that these settings describe."""
    size = settings.max_message_bytes
    visual = Peer("the visual service", settings.visual_address, max_message_bytes=size)
    audio = Peer("the audio service", settings.audio_address, max_message_bytes=size)
    fusion = Peer("the fusion service", settings.fusion_address, max_message_bytes=size)
    decoder = DecodePool(settings.decode_workers, SamplingPlan(), settings.limits())
    pipeline = Pipeline(decoder, VisualClient(visual), AudioClient(audio), FusionClient(fusion), settings.allowances())
    reception = Reception(pipeline, settings.upload_limits())
    servicer = AnalysisServicer(reception, ModelRepository(settings.model_repository), settings.call_seconds)
    return Service(
        title="gateway",
        names=(analysis_pb2.DESCRIPTOR.services_by_name["AnalysisService"].full_name,),
        register=lambda server: analysis_pb2_grpc.add_AnalysisServiceServicer_to_server(servicer, server),
        ready=lambda: check_ready(fusion, (visual, audio)),
        close=(decoder.close, visual.close, audio.close, fusion.close),
    )


if __name__ == "__main__":
    options = GatewaySettings()
    run(build(options), options)
