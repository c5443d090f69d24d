"""Several clips in one call: a few at a time, each answered as it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from services.common.errors import BonafideError, DeadlineError, LimitExceededError
from services.common.tracing import span
from services.gateway.analysis import Analysis, Options
from services.gateway.clock import Clock
from services.gateway.metrics import GatewayMetrics
from services.gateway.reception import Reception

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Clips of one batch: in all, and at the same time."""

    items: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Item:
    """One clip of a batch; ``chunks`` opens it when its turn comes."""

    options: Options
    chunks: Callable[[], AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Ending:
    """How the item at ``index`` ended: with its analysis, or with why there is none."""

    index: int
    request_id: str
    outcome: Analysis | BonafideError


class Batches:
    """Runs batches through the same reception as single clips."""

    def __init__(self, reception: Reception, metrics: GatewayMetrics, limits: BatchLimits) -> None:
        self._reception = reception
        self._metrics = metrics
        self._limits = limits

    async def run(self, items: Sequence[Item], *, timeout: float) -> AsyncGenerator[Ending, None]:
        """Analyse all items.

        Args:
            items: the clips.
            timeout: seconds until the caller's deadline; items that it does not reach end with a DeadlineError.

        Yields:
            One Ending an item, in the order in which they end. Leaving early cancels the rest.

        Raises:
            LimitExceededError: there are too many (BATCH_TOO_LARGE).
        """
        if len(items) > self._limits.items:
            raise LimitExceededError(f"a batch has at most {self._limits.items} items", reason="BATCH_TOO_LARGE")
        clock = Clock(timeout)
        endings: asyncio.Queue[Ending] = asyncio.Queue(self._limits.concurrency)
        waiting = iter(enumerate(items))

        async def work() -> None:
            for index, item in waiting:
                outcome = await self._outcome(item, clock)
                await endings.put(Ending(index, item.options.request_id, outcome))

        workers = [asyncio.create_task(work()) for _ in range(self._limits.concurrency)]
        try:
            for _ in items:
                yield await endings.get()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _outcome(self, item: Item, clock: Clock) -> Analysis | BonafideError:
        try:
            with span("item", {"bonafide.priority": item.options.priority.value}):
                return await clock.within(self._analysis(item, clock))
        except BonafideError as error:
            outcome = error
        except Exception:  # noqa: BLE001 - the door through which nothing unexpected leaves
            _log.exception("unexpected error in an item of a batch")
            outcome = BonafideError("an internal error; it has been logged")
        self._metrics.refused(outcome.reason)
        return outcome

    async def _analysis(self, item: Item, clock: Clock) -> Analysis:
        if not clock.left():
            raise DeadlineError("the time for this batch was used up")
        events = self._reception.analyze(item.options, item.chunks(), timeout=clock.left())
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Analysis):
                    return event
        raise BonafideError("the analysis ended without an answer")
