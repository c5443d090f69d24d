"""Open-loop load on the door and the turns, in virtual time: what ten times too much does to those who get in."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from services.common.errors import ResourceExhaustedError
from services.gateway.admission import Admission, AdmissionRules, Applicant
from services.gateway.analysis import Priority
from services.gateway.waiting_room import LaneRule

SLOTS, ANALYSIS_SECONDS, UPLOAD_SECONDS = 2, 1.0, 0.05
CAPACITY = SLOTS / ANALYSIS_SECONDS
RULES = AdmissionRules(
    analyses=SLOTS,
    uploads=64,
    lanes={
        Priority.INTERACTIVE: LaneRule(weight=16.0, places=16, brisk=True),
        Priority.BATCH: LaneRule(weight=4.0, places=64),
        Priority.BACKFILL: LaneRule(weight=1.0, places=256),
    },
    analysis_bytes=1,
    upload_memory_bytes=1,
    memory_bytes=1 << 20,
    spool_bytes=1 << 20,
)


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    _ready: Any
    _scheduled: Any

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0

    def time(self) -> float:
        return self._seconds

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self._seconds = max(self._seconds, self._scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


@dataclass
class Outcome:
    """How long those took who were served, by lane, and why others were refused."""

    seconds: dict[Priority, list[float]] = field(default_factory=lambda: {priority: [] for priority in Priority})
    refused: Counter[str] = field(default_factory=Counter)

    def goodput(self, lane: Priority = Priority.INTERACTIVE) -> int:
        return len(self.seconds[lane])

    def p99(self, lane: Priority = Priority.INTERACTIVE) -> float:
        ordered = sorted(self.seconds[lane])
        return ordered[int(0.99 * len(ordered))]


async def load(rates: dict[Priority, float], seconds: float) -> Outcome:
    """Poisson arrivals at these rates a second; who arrives does not wait for who came before."""
    clock = asyncio.get_running_loop().time
    admission, outcome, randomness = Admission(RULES, clock), Outcome(), random.Random(0)

    async def request(lane: Priority) -> None:
        began = clock()
        applicant = Applicant("caller", lane, seconds_left=60.0)
        try:
            with admission.door(applicant):
                await asyncio.sleep(UPLOAD_SECONDS)
            async with admission.turn(applicant):
                await asyncio.sleep(ANALYSIS_SECONDS * randomness.uniform(0.5, 1.5))
            if clock() <= seconds:
                outcome.seconds[lane].append(clock() - began)
        except ResourceExhaustedError as error:
            outcome.refused[error.reason] += 1

    async def arrivals(lane: Priority, rate: float) -> None:
        under_way = []
        while clock() < seconds:
            await asyncio.sleep(randomness.expovariate(rate))
            under_way.append(asyncio.create_task(request(lane)))
        await asyncio.gather(*under_way, return_exceptions=True)

    await asyncio.gather(*(arrivals(lane, rate) for lane, rate in rates.items()))
    state = admission.state
    assert (state.receiving, state.analyzing, sum(state.waiting.values())) == (0, 0, 0)
    return outcome


def run(story: Coroutine[Any, Any, Outcome]) -> Outcome:
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(story)


def interactive(times_capacity: float) -> Outcome:
    return run(load({Priority.INTERACTIVE: times_capacity * CAPACITY}, seconds=600.0))


def test_ten_times_too_much_costs_neither_goodput_nor_the_time_of_those_let_in() -> None:
    calm, *heavier = (interactive(times) for times in (0.5, 1.0, 2.0, 10.0))
    flood = heavier[-1]
    assert calm.goodput() > 0.95 * 0.5 * CAPACITY * 600
    assert flood.goodput() >= 0.9 * max(outcome.goodput() for outcome in heavier)
    assert flood.goodput() >= 0.9 * CAPACITY * 600
    assert flood.p99() <= 2 * calm.p99()
    assert flood.refused["QUEUE_FULL"] > 4 * flood.refused["OVERLOADED"]  # most are refused before they upload


def test_a_flood_of_backfill_hardly_slows_who_is_waited_for_and_still_moves() -> None:
    alone = interactive(0.5)
    mixed = run(load({Priority.INTERACTIVE: 0.5 * CAPACITY, Priority.BACKFILL: 5 * CAPACITY}, seconds=600.0))
    assert mixed.goodput() >= 0.8 * alone.goodput()
    assert mixed.p99() <= alone.p99() + ANALYSIS_SECONDS
    assert mixed.goodput(Priority.BACKFILL) >= 0.35 * CAPACITY * 600
