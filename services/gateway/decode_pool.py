"""Decoding on threads of its own, so that the event loop never waits for a picture."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from services.gateway.decoding import DecodedClip, decode
from services.gateway.limits import DecodeLimits
from services.gateway.sampling import SamplingPlan


class DecodePool:
    """Decodes a bounded number of clips at a time; others wait their turn."""

    def __init__(self, workers: int, plan: SamplingPlan, limits: DecodeLimits) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._plan = plan
        self._limits = limits

    async def decode(self, source: BinaryIO) -> DecodedClip:
        """Decode one file; see ``decoding.decode``.

        When the caller is cancelled the decode ends at the next packet, and this returns only then: the
        file may be closed afterwards.
        """
        cancelled = threading.Event()
        job = self._pool.submit(decode, source, self._plan, self._limits, cancelled.is_set)
        work = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            if not job.cancel():
                await asyncio.gather(work, return_exceptions=True)
            raise

    async def close(self) -> None:
        """Wait for decodes that run, and let the threads go."""
        await asyncio.to_thread(self._pool.shutdown)
