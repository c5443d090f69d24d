"""The way of a request to its analysis: take the upload in, then hand it to the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from services.gateway.analysis import Event, Options, Stage
from services.gateway.clock import Clock
from services.gateway.ingest import Spool
from services.gateway.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Bytes of one upload: in all, and those kept in memory."""

    max_file_bytes: int
    spool_memory_bytes: int


class Reception:
    """Takes uploads in and has them analysed."""

    def __init__(self, pipeline: Pipeline, limits: UploadLimits) -> None:
        self._pipeline = pipeline
        self._limits = limits

    async def analyze(
        self, options: Options, chunks: AsyncIterator[bytes], *, timeout: float
    ) -> AsyncGenerator[Event, None]:
        """Analyse one upload.

        Args:
            options: what the caller wants.
            chunks: the file's bytes as they arrive.
            timeout: seconds until the caller's deadline.

        Yields:
            Progress, each ledger line once, and last the Analysis.

        Raises:
            BonafideError: what ``Pipeline.run`` raises, and for uploads that are too large or empty.
        """
        clock = Clock(timeout)
        yield clock.enter(Stage.RECEIVING)
        with Spool(self._limits.max_file_bytes, self._limits.spool_memory_bytes) as spool:
            await clock.within(receive(spool, options.size_bytes, chunks))
            async with aclosing(self._pipeline.run(options, spool, clock)) as events:
                async for event in events:
                    yield event


async def receive(spool: Spool, size_bytes: int, chunks: AsyncIterator[bytes]) -> None:
    """Write an upload down as it arrives; ``size_bytes`` is what its sender declares, 0 when unknown."""
    spool.expect(size_bytes)
    async for chunk in chunks:
        await asyncio.to_thread(spool.write, chunk)
