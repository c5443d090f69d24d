"""AudioService over gRPC: convert, call, convert back."""

from __future__ import annotations

import grpc

from bonafide.v1 import audio_pb2, audio_pb2_grpc
from services.audio.converters import branches_from_proto, evidence_to_proto
from services.audio.pipeline import AudioPipeline
from services.common.converters import audio_from_proto
from services.common.status import ANSWER_MARGIN_SECONDS, remaining_seconds, unary_errors


class AudioServicer(audio_pb2_grpc.AudioServiceServicer):
    """Answers AnalyzeSpeech calls with one pipeline."""

    def __init__(self, pipeline: AudioPipeline, call_seconds: float) -> None:
        self._pipeline = pipeline
        self._call_seconds = call_seconds

    @unary_errors
    async def AnalyzeSpeech(  # noqa: N802 - the contract's name
        self,
        request: audio_pb2.AnalyzeSpeechRequest,
        context: grpc.aio.ServicerContext[audio_pb2.AnalyzeSpeechRequest, audio_pb2.AnalyzeSpeechResponse],
    ) -> audio_pb2.AnalyzeSpeechResponse:
        """See the contract."""
        audio, branches = audio_from_proto(request.audio), branches_from_proto(request)
        timeout = remaining_seconds(context, default=self._call_seconds, margin=ANSWER_MARGIN_SECONDS)
        evidence = await self._pipeline.analyze(audio, branches, timeout=timeout, content=request.content_sha256)
        return evidence_to_proto(evidence)
