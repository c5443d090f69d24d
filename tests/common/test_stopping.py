"""Inference that nobody waits for any more stops: counted in runs and calls, not in seconds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from services.audio.pipeline import AudioPipeline, WindowPlan
from services.common.errors import DeadlineError, UnavailableError
from services.common.inference import Array, EmbeddedEngine
from services.common.media import AudioTrack
from services.common.models import ModelRepository
from services.visual.batching import ModelCalls, stacked
from tests.audio.conftest import babble

REPOSITORY = ModelRepository(Path(__file__).parents[2] / "model_repository")
INPUTS = {"samples": np.zeros((1, 16_000), np.float32)}


class Endless(EmbeddedEngine):
    """Every run goes on until it is told to end."""

    def __init__(self) -> None:
        super().__init__(REPOSITORY)
        self.begun, self.ended = threading.Semaphore(0), threading.Semaphore(0)
        self.runs = 0

    def run(
        self,
        model: str,  # noqa: ARG002
        inputs: Mapping[str, Array],  # noqa: ARG002
        options: onnxruntime.RunOptions | None = None,
        *,
        version: str = "",  # noqa: ARG002
    ) -> dict[str, Array]:
        assert options is not None
        self.runs += 1
        self.begun.release()
        while not options.terminate:
            time.sleep(0.001)
        self.ended.release()
        raise UnavailableError("told to end")


async def wait_for(semaphore: threading.Semaphore) -> None:
    assert await asyncio.to_thread(semaphore.acquire, timeout=20)


def test_onnx_runtime_ends_a_run_that_is_told_to() -> None:
    engine = EmbeddedEngine(REPOSITORY)
    assert engine.run("spoof_classifier", INPUTS)
    options = onnxruntime.RunOptions()
    options.terminate = True
    with pytest.raises(UnavailableError):
        engine.run("spoof_classifier", INPUTS, options)


async def test_a_run_ends_when_its_caller_goes_away_or_is_late() -> None:
    engine = Endless()
    task = asyncio.create_task(engine.infer("m", INPUTS, timeout=60))
    await wait_for(engine.begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_for(engine.ended)
    with pytest.raises(DeadlineError):
        await engine.infer("m", INPUTS, timeout=0.01)
    await wait_for(engine.ended)
    assert engine.runs == 2


async def test_no_further_batch_begins_once_the_caller_has_gone() -> None:
    engine = Endless()
    calls = ModelCalls(engine, timeout=60, in_flight=2)
    items = [np.zeros(1, np.float32)] * 40
    work = calls.over("m", items, batch=1, prepare=lambda part: stacked("x", part), finish=lambda _, __: [])
    task = asyncio.create_task(work)
    await wait_for(engine.begun)
    await wait_for(engine.begun)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await wait_for(engine.ended)
    await wait_for(engine.ended)
    assert engine.runs == 2


class Counting(EmbeddedEngine):
    """The first run fails; the others count themselves."""

    def __init__(self) -> None:
        super().__init__(REPOSITORY)
        self.under_way = self.cancelled = 0

    async def infer(
        self,
        model: str,  # noqa: ARG002
        inputs: Mapping[str, Array],  # noqa: ARG002
        *,
        timeout: float,  # noqa: ARG002
    ) -> dict[str, Array]:
        self.under_way += 1
        if self.under_way == 1:
            await asyncio.sleep(0)
            raise UnavailableError("gone")
        try:
            return await asyncio.Event().wait() and {}
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def test_windows_of_a_sound_are_not_scored_in_vain_after_one_failed() -> None:
    engine = Counting()
    pipeline = AudioPipeline(engine, REPOSITORY, WindowPlan())
    evidence = await pipeline.analyze(AudioTrack(0, babble(13.0)), frozenset(), timeout=60)
    await asyncio.sleep(0)
    assert evidence.voice is not None
    assert engine.under_way > 1
    assert engine.cancelled == engine.under_way - 1
