"""Calls of one request keep their order, share one deadline and fail together."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from services.common.errors import DeadlineError, UnavailableError
from services.common.inference import Array
from services.visual.batching import ModelCalls, stacked


class Doubler:
    """An engine that doubles, slower for earlier batches, and counts what is under way."""

    kind = "embedded"

    def __init__(self) -> None:
        self.running = self.most = 0
        self.sizes: list[int] = []

    async def infer(self, model: str, inputs: Mapping[str, Array], *, timeout: float) -> dict[str, Array]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.sizes.append(len(inputs["x"]))
        try:
            if model == "broken":
                raise UnavailableError("broken")
            async with asyncio.timeout(timeout):
                await asyncio.sleep(0.02 / len(self.sizes))
        except TimeoutError as error:
            raise DeadlineError("late") from error
        finally:
            self.running -= 1
        return {"y": inputs["x"] * 2}

    async def close(self) -> None:
        pass


def read(_: object, outputs: Mapping[str, Any]) -> list[float]:
    return [float(value) for value in outputs["y"]]


async def test_results_keep_the_order_of_the_items() -> None:
    engine = Doubler()
    calls = ModelCalls(engine, timeout=5, in_flight=3)
    items = [np.float32(value) for value in range(10)]
    doubled = await calls.over("m", items, batch=3, prepare=lambda part: stacked("x", part), finish=read)
    assert doubled == [2.0 * value for value in range(10)]
    assert sorted(engine.sizes) == [1, 3, 3, 3]
    assert engine.most <= 3


async def test_no_items_need_no_call() -> None:
    engine = Doubler()
    calls = ModelCalls(engine, timeout=5, in_flight=1)
    nothing: list[np.float32] = []
    assert await calls.over("m", nothing, batch=3, prepare=lambda part: stacked("x", part), finish=read) == []
    assert engine.sizes == []


@pytest.mark.parametrize(("model", "timeout", "error"), [("broken", 5, UnavailableError), ("m", 0, DeadlineError)])
async def test_the_first_failure_ends_the_rest(model: str, timeout: float, error: type[Exception]) -> None:
    engine = Doubler()
    calls = ModelCalls(engine, timeout=timeout, in_flight=1)
    items = [np.float32(value) for value in range(50)]
    with pytest.raises(error):
        await calls.over(model, items, batch=1, prepare=lambda part: stacked("x", part), finish=read)
    assert len(engine.sizes) < 50
