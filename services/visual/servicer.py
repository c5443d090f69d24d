"""VisualService over gRPC: convert, call, convert back."""

from __future__ import annotations

import grpc

from bonafide.v1 import visual_pb2, visual_pb2_grpc
from services.common.status import ANSWER_MARGIN_SECONDS, remaining_seconds, unary_errors
from services.visual.converters import evidence_to_proto, request_from_proto
from services.visual.pipeline import VisualPipeline


class VisualServicer(visual_pb2_grpc.VisualServiceServicer):
    """Answers AnalyzeFaces calls with one pipeline."""

    def __init__(self, pipeline: VisualPipeline, call_seconds: float) -> None:
        self._pipeline = pipeline
        self._call_seconds = call_seconds

    @unary_errors
    async def AnalyzeFaces(  # noqa: N802 - the contract's name
        self,
        request: visual_pb2.AnalyzeFacesRequest,
        context: grpc.aio.ServicerContext[visual_pb2.AnalyzeFacesRequest, visual_pb2.AnalyzeFacesResponse],
    ) -> visual_pb2.AnalyzeFacesResponse:
        """See the contract."""
        timeout = remaining_seconds(context, default=self._call_seconds, margin=ANSWER_MARGIN_SECONDS)
        clip = request_from_proto(request)
        evidence = await self._pipeline.analyze(
            clip.survey, clip.dense, clip.branches, timeout=timeout, content=clip.content
        )
        return evidence_to_proto(evidence)
