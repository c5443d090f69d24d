"""FusionService over gRPC: convert, call, convert back."""

from __future__ import annotations

import grpc

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.status import ANSWER_MARGIN_SECONDS, remaining_seconds, unary_errors
from services.fusion.converters import input_from_proto, result_to_proto
from services.fusion.pipeline import FusionPipeline


class FusionServicer(fusion_pb2_grpc.FusionServiceServicer):
    """Answers Fuse calls with one pipeline."""

    def __init__(self, pipeline: FusionPipeline, call_seconds: float) -> None:
        self._pipeline = pipeline
        self._call_seconds = call_seconds

    @unary_errors
    async def Fuse(  # noqa: N802 - the contract's name
        self,
        request: fusion_pb2.FuseRequest,
        context: grpc.aio.ServicerContext[fusion_pb2.FuseRequest, fusion_pb2.FuseResponse],
    ) -> fusion_pb2.FuseResponse:
        """See the contract."""
        timeout = remaining_seconds(context, default=self._call_seconds, margin=ANSWER_MARGIN_SECONDS)
        return result_to_proto(await self._pipeline.fuse(input_from_proto(request), timeout=timeout))
