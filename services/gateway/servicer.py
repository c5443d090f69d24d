"""AnalysisService over gRPC: convert, call, convert back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from bonafide.v1 import analysis_pb2, analysis_pb2_grpc
from services.common.models import ModelCard, ModelRepository
from services.common.status import remaining_seconds, stream_errors, unary_errors
from services.gateway.converters import (
    card_to_proto,
    chunks_from_proto,
    event_to_proto,
    opening_from_proto,
    options_from_proto,
)
from services.gateway.reception import Reception


class AnalysisServicer(analysis_pb2_grpc.AnalysisServiceServicer):
    """The public API."""

    def __init__(self, reception: Reception, repository: ModelRepository, call_seconds: float) -> None:
        self._reception = reception
        self._repository = repository
        self._call_seconds = call_seconds

    @stream_errors
    async def Analyze(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[analysis_pb2.AnalyzeRequest],
        context: grpc.aio.ServicerContext[analysis_pb2.AnalyzeRequest, analysis_pb2.AnalyzeResponse],
    ) -> AsyncIterator[analysis_pb2.AnalyzeResponse]:
        """See the contract."""
        timeout = remaining_seconds(context, default=self._call_seconds)
        messages = aiter(request_iterator)
        options = options_from_proto(opening_from_proto(await anext(messages, None)))
        async for event in self._reception.analyze(options, chunks_from_proto(messages), timeout=timeout):
            yield event_to_proto(event)

    async def AnalyzeUri(  # noqa: N802 - the contract's name
        self,
        request: analysis_pb2.AnalyzeUriRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[analysis_pb2.AnalyzeUriRequest, analysis_pb2.AnalyzeUriResponse],
    ) -> AsyncIterator[analysis_pb2.AnalyzeUriResponse]:
        """Not served yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED)
        yield analysis_pb2.AnalyzeUriResponse()  # type: ignore[unreachable]

    async def BatchAnalyze(  # noqa: N802 - the contract's name
        self,
        request: analysis_pb2.BatchAnalyzeRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[analysis_pb2.BatchAnalyzeRequest, analysis_pb2.BatchAnalyzeResponse],
    ) -> AsyncIterator[analysis_pb2.BatchAnalyzeResponse]:
        """Not served yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED)
        yield analysis_pb2.BatchAnalyzeResponse()  # type: ignore[unreachable]

    @unary_errors
    async def ListModels(  # noqa: N802 - the contract's name
        self,
        request: analysis_pb2.ListModelsRequest,  # noqa: ARG002 - holds nothing
        context: grpc.aio.ServicerContext[  # noqa: ARG002
            analysis_pb2.ListModelsRequest, analysis_pb2.ListModelsResponse
        ],
    ) -> analysis_pb2.ListModelsResponse:
        """See the contract."""
        cards = await asyncio.to_thread(self._cards)
        return analysis_pb2.ListModelsResponse(models=[card_to_proto(card) for card in cards])

    def _cards(self) -> list[ModelCard]:
        return [self._repository.card(name) for name in self._repository.names()]
