"""The inference calls of one request: bounded in number, and in time by one deadline for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from services.common.inference import InferenceEngine

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Result = TypeVar("Result")
MIN_TIMEOUT_SECONDS = 0.001


class ModelCalls:
    """Runs models for one request.

    Args:
        engine: where the networks run.
        timeout: seconds that all calls together may take, from now.
        in_flight: calls that may be under way at once; two keep the network busy while the next batch is
            being prepared, and more only costs memory.
    """

    def __init__(self, engine: InferenceEngine, *, timeout: float, in_flight: int) -> None:
        self._engine = engine
        self._ends = time.monotonic() + timeout
        self._gate = asyncio.Semaphore(in_flight)

    def remaining(self) -> float:
        """Seconds left; never 0, so that a late call still fails with the engine's own DeadlineError."""
        return max(self._ends - time.monotonic(), MIN_TIMEOUT_SECONDS)

    def through(self, engine: InferenceEngine, timeout: float) -> ModelCalls:
        """Calls to another engine within these seconds, counted together with these."""
        other = ModelCalls(engine, timeout=min(timeout, self.remaining()), in_flight=1)
        other._gate = self._gate
        return other

    async def over(
        self,
        model: str,
        items: Sequence[Item],
        *,
        batch: int,
        prepare: Callable[[Sequence[Item]], Mapping[str, Array]],
        finish: Callable[[Sequence[Item], Mapping[str, Array]], list[Result]],
    ) -> list[Result]:
        """Run a model over many items in batches.

        Args:
            model: directory name in the model repository.
            items: what to run it on.
            batch: largest number of items a call.
            prepare: makes the model's inputs of some items; runs on a worker thread.
            finish: makes one result an item of the outputs; runs on a worker thread.

        Returns:
            The results in the order of the items.

        Raises:
            BonafideError: what the engine raises; the first failure ends the rest.
        """

        async def one(part: Sequence[Item]) -> list[Result]:
            async with self._gate:
                inputs = await asyncio.to_thread(prepare, part)
                outputs = await self._engine.infer(model, inputs, timeout=self.remaining())
            return await asyncio.to_thread(finish, part, outputs)

        tasks = [asyncio.ensure_future(one(items[at : at + batch])) for at in range(0, len(items), batch)]
        try:
            parts = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [result for part in parts for result in part]


def stacked(name: str, arrays: Sequence[Array]) -> dict[str, Array]:
    """One input of a model, from one array an item."""
    return {name: np.stack(arrays)}
