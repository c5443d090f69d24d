"""AnalysisService over gRPC: convert, call, convert back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc

from bonafide.v1 import analysis_pb2, analysis_pb2_grpc
from services.common.status import remaining_seconds, stream_errors, unary_errors
from services.gateway.analysis import Priority
from services.gateway.batch import Batches, Item
from services.gateway.converters import (
    card_to_proto,
    chunks_from_proto,
    ending_to_proto,
    event_to_proto,
    opening_from_proto,
    options_from_proto,
)
from services.gateway.reception import Reception
from services.gateway.served_models import ServedModels
from services.gateway.sources import Sources

ANSWER_MARGIN_SECONDS = 0.5
"""Kept of the caller's deadline to say what became of the call, which is lost when the deadline passes first."""
MARGIN_SHARE = 0.1
"""Of a short deadline no more than this share is kept."""


class AnalysisServicer(analysis_pb2_grpc.AnalysisServiceServicer):
    """The public API."""

    def __init__(
        self,
        reception: Reception,
        batches: Batches,
        sources: Sources,
        models: ServedModels,
        call_seconds: float,
    ) -> None:
        self._reception = reception
        self._batches = batches
        self._sources = sources
        self._models = models
        self._call_seconds = call_seconds

    @stream_errors
    async def Analyze(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[analysis_pb2.AnalyzeRequest],
        context: grpc.aio.ServicerContext[analysis_pb2.AnalyzeRequest, analysis_pb2.AnalyzeResponse],
    ) -> AsyncIterator[analysis_pb2.AnalyzeResponse]:
        """See the contract."""
        timeout = self._timeout(context)
        messages = aiter(request_iterator)
        opening = opening_from_proto(await anext(messages, None))
        chunks = chunks_from_proto(messages)
        if opening.upload_id:
            chunks = self._sources.chunks(upload_id=opening.upload_id)
        events = self._reception.analyze(options_from_proto(opening), chunks, timeout=timeout)
        async with aclosing(events):
            async for event in events:
                yield event_to_proto(event, analysis_pb2.AnalyzeResponse)

    @stream_errors
    async def AnalyzeUri(  # noqa: N802 - the contract's name
        self,
        request: analysis_pb2.AnalyzeUriRequest,
        context: grpc.aio.ServicerContext[analysis_pb2.AnalyzeUriRequest, analysis_pb2.AnalyzeUriResponse],
    ) -> AsyncIterator[analysis_pb2.AnalyzeUriResponse]:
        """See the contract."""
        timeout = self._timeout(context)
        chunks = self._sources.chunks(uri=request.uri)
        events = self._reception.analyze(options_from_proto(request.options), chunks, timeout=timeout)
        async with aclosing(events):
            async for event in events:
                yield event_to_proto(event, analysis_pb2.AnalyzeUriResponse)

    @stream_errors
    async def BatchAnalyze(  # noqa: N802 - the contract's name
        self,
        request: analysis_pb2.BatchAnalyzeRequest,
        context: grpc.aio.ServicerContext[analysis_pb2.BatchAnalyzeRequest, analysis_pb2.BatchAnalyzeResponse],
    ) -> AsyncIterator[analysis_pb2.BatchAnalyzeResponse]:
        """See the contract."""
        timeout = self._timeout(context)
        items = [
            Item(
                options_from_proto(item.options, lane=Priority.BATCH),
                partial(self._sources.chunks, upload_id=item.options.upload_id, uri=item.uri),
            )
            for item in request.items
        ]
        endings = self._batches.run(items, timeout=timeout)
        async with aclosing(endings):
            async for ending in endings:
                yield ending_to_proto(ending)

    @unary_errors
    async def ListModels(  # noqa: N802 - the contract's name
        self,
        request: analysis_pb2.ListModelsRequest,  # noqa: ARG002 - holds nothing
        context: grpc.aio.ServicerContext[  # noqa: ARG002
            analysis_pb2.ListModelsRequest, analysis_pb2.ListModelsResponse
        ],
    ) -> analysis_pb2.ListModelsResponse:
        """See the contract."""
        cards = await asyncio.to_thread(self._models.cards)
        return analysis_pb2.ListModelsResponse(models=[card_to_proto(card) for card in cards])

    def _timeout(self, context: grpc.aio.ServicerContext[Any, Any]) -> float:
        """Seconds that a call may take, so that its answer still arrives within the caller's deadline."""
        left = remaining_seconds(context, default=self._call_seconds)
        return left - min(ANSWER_MARGIN_SECONDS, MARGIN_SHARE * left)
