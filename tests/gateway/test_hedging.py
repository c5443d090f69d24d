"""A second call where the first is late, and never a third."""

from __future__ import annotations

import asyncio

import pytest

from services.common.errors import UnavailableError
from services.gateway.hedging import hedged


class Replicas:
    """Answers call by call: a value, an error, or silence."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = list(answers)
        self.asked = self.cancelled = 0

    async def ask(self) -> str:
        answer = self.answers[self.asked]
        self.asked += 1
        if answer is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


async def test_a_prompt_answer_or_failure_costs_one_call() -> None:
    replicas = Replicas("first")
    assert await hedged(replicas.ask, after=60.0) == "first"
    broken = Replicas(UnavailableError("gone"))
    with pytest.raises(UnavailableError):
        await hedged(broken.ask, after=60.0)
    assert (replicas.asked, broken.asked) == (1, 1)


async def test_a_silent_replica_is_overtaken_and_let_go() -> None:
    replicas = Replicas(None, "second")
    assert await hedged(replicas.ask, after=0.0) == "second"
    assert (replicas.asked, replicas.cancelled) == (2, 1)


async def test_one_failure_leaves_the_other_its_chance() -> None:
    replicas = Replicas(None, UnavailableError("gone"))
    task = asyncio.create_task(hedged(replicas.ask, after=0.0))
    for _ in range(10):
        await asyncio.sleep(0.001)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert replicas.cancelled == 1


async def test_two_failures_are_a_failure() -> None:
    late = asyncio.Event()

    async def ask() -> str:
        await late.wait()
        raise UnavailableError("gone")

    task = asyncio.create_task(hedged(ask, after=0.0))
    await asyncio.sleep(0.001)
    late.set()
    with pytest.raises(UnavailableError):
        await task
