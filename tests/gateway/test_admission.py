"""Who gets in, whose turn it is, and that places and bytes always come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import BonafideError, DeadlineError, ResourceExhaustedError
from services.gateway.admission import Admission, AdmissionRules, Applicant
from services.gateway.analysis import Priority
from services.gateway.waiting_room import LaneRule

INTERACTIVE, BATCH, BACKFILL = Priority
LANES = {
    INTERACTIVE: LaneRule(weight=16.0, places=4, brisk=True),
    BATCH: LaneRule(weight=4.0, places=8),
    BACKFILL: LaneRule(weight=1.0, places=100),
}
RULES = AdmissionRules(
    analyses=2,
    uploads=4,
    lanes=LANES,
    analysis_bytes=100,
    upload_memory_bytes=50,
    memory_bytes=1000,
    spool_bytes=1000,
)


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def applicant(caller: str = "a", priority: Priority = INTERACTIVE, seconds_left: float = 1e6) -> Applicant:
    return Applicant(caller, priority, seconds_left)


class House:
    """An admission and those who wait or run in it; each runs until it is told to end."""

    def __init__(self, rules: AdmissionRules = RULES) -> None:
        self.time = Time()
        self.admission = Admission(rules, self.time)
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, name: str, who: Applicant | None = None) -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, who or applicant()))
        await self.settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    async def learn(self, seconds: float) -> None:
        """Let the admission see one analysis of this length."""
        await self.join("first")
        self.time.seconds += seconds
        await self.end("first")
        self.begun.clear()

    async def _stay(self, name: str, who: Applicant) -> None:
        async with self.admission.turn(who):
            self.begun.append(name)
            await self.ends[name].wait()

    def refusal(self, who: Applicant | None = None) -> str:
        try:
            with self.admission.door(who or applicant()):
                return ""
        except ResourceExhaustedError as error:
            return error.reason if error.retry_after_seconds else "no advice when to come back"

    async def empty(self) -> bool:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        state = self.admission.state
        return (state.analyzing, state.receiving, sum(state.waiting.values())) == (0, 0, 0)


async def test_only_so_many_run_and_the_rest_go_in_order() -> None:
    house = House()
    for name in "abcd":
        await house.join(name)
    assert house.begun == ["a", "b"]
    assert house.admission.state.waiting[INTERACTIVE] == 2
    await house.end("b")
    await house.end("a")
    assert house.begun == ["a", "b", "c", "d"]
    assert await house.empty()


async def test_a_small_memory_lets_fewer_run_but_always_one() -> None:
    for memory, running in ((1000, 2), (200, 1), (10, 1)):
        house = House(replace(RULES, memory_bytes=memory))
        for name in "ab":
            await house.join(name)
        assert len(house.begun) == running
        assert await house.empty()


async def test_what_a_small_clip_does_not_need_is_for_others() -> None:
    admission = House(replace(RULES, memory_bytes=200)).admission  # 150 for analyses of at most 100
    began = asyncio.Event()

    async def second() -> None:
        async with admission.turn(applicant()):
            began.set()

    async with admission.turn(applicant()) as holds:
        task = asyncio.create_task(second())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not began.is_set()
        holds(50)
        await asyncio.wait_for(began.wait(), 10)
        await task
    assert admission.state.memory_bytes == 0


async def test_uploads_have_places_of_their_own() -> None:
    house = House()
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(house.admission.door(applicant()))
        assert house.refusal() == "UPLOADS_FULL"
        await house.join("ready")  # bytes that trickle in keep nobody from being analysed
        assert house.begun == ["ready"]
    assert house.refusal() == ""
    assert await house.empty()


async def test_the_door_closes_when_the_lane_is_full_and_only_that_lane() -> None:
    house = House()
    for name in range(6):
        await house.join(str(name))
    assert house.refusal() == "QUEUE_FULL"
    assert house.refusal(applicant(priority=BATCH)) == ""
    assert house.admission.state.refused == {"QUEUE_FULL": 1}
    assert await house.empty()


async def test_nobody_takes_more_than_a_share_while_others_want_in() -> None:
    house = House()
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(house.admission.door(applicant("greedy")))
        assert house.refusal(applicant("other")) == ""
        assert house.refusal(applicant("greedy")) == "CALLER_SHARE_FULL"
        assert house.refusal(applicant("other")) == ""
    house.time.seconds += 60.0
    with ExitStack() as held:  # alone again, it may have everything
        for _ in range(4):
            held.enter_context(house.admission.door(applicant("greedy")))


async def test_a_caller_with_many_requests_does_not_delay_one_with_few() -> None:
    house = House(replace(RULES, analyses=1))
    await house.join("running")
    for name in ("g1", "g2", "g3"):
        await house.join(name, applicant("greedy"))
    await house.join("m1", applicant("modest"))
    for name in ("running", "g1"):
        await house.end(name)
    assert house.begun[:3] == ["running", "g1", "m1"]
    assert await house.empty()


async def test_interactive_goes_first_and_backfill_still_moves() -> None:
    lanes = {priority: replace(lane, places=100, brisk=False) for priority, lane in LANES.items()}
    house = House(replace(RULES, analyses=1, lanes=lanes))
    for index in range(60):
        for priority in Priority:
            await house.join(f"{priority} {index}", applicant(priority=priority))
    for _ in range(42):
        await house.end(house.begun[-1])
    got = Counter(name.split()[0] for name in house.begun)
    assert got["interactive"] == pytest.approx(32, abs=2)
    assert got["batch"] == pytest.approx(8, abs=2)
    assert got["backfill"] >= 2
    assert await house.empty()


async def test_a_deadline_that_the_queue_cannot_meet_is_refused_at_once() -> None:
    house = House()
    await house.learn(10.0)
    hurried = applicant(seconds_left=12.0)
    assert house.refusal(hurried) == ""
    for name in "abc":
        await house.join(name)
    assert house.refusal(hurried) == "DEADLINE_UNMEETABLE"
    assert house.refusal(applicant(seconds_left=100.0)) == ""
    assert await house.empty()


async def test_analyses_that_fail_at_once_do_not_make_the_queue_look_fast() -> None:
    house = House(replace(RULES, analyses=1))
    await house.learn(10.0)
    for _ in range(100):
        with pytest.raises(ValueError, match="not media"):
            async with house.admission.turn(applicant()):
                raise ValueError("not media")
    await house.join("running")
    await house.join("waiting")
    assert house.refusal(applicant(seconds_left=25.0)) == "DEADLINE_UNMEETABLE"
    assert await house.empty()


async def test_a_standing_queue_serves_newcomers_and_refuses_those_who_waited_too_long() -> None:
    house = House(replace(RULES, analyses=1))
    await house.learn(10.0)
    for name in ("running", "old 1", "old 2"):
        await house.join(name)
    house.time.seconds += 40.0
    await house.join("new")
    assert house.refusal() == "QUEUE_FULL"  # fewer places while it lasts
    await house.end("running")
    assert house.begun == ["running", "new"]
    for name in ("old 1", "old 2"):
        error = house.tasks[name].exception()
        assert isinstance(error, ResourceExhaustedError)
        assert error.reason == "OVERLOADED"
    assert house.admission.state.refused["OVERLOADED"] == 2
    await house.end("new")
    assert house.refusal() == ""  # the queue was empty: all is as before
    assert await house.empty()


async def test_batch_waits_however_long_it_takes() -> None:
    house = House(replace(RULES, analyses=1))
    await house.learn(10.0)
    for name in ("running", "old", "new"):
        await house.join(name, applicant(priority=BATCH))
    house.time.seconds += 1000.0
    await house.end("running")
    assert house.begun == ["running", "old"]
    assert await house.empty()


async def test_time_that_runs_out_in_the_queue_is_a_deadline_error() -> None:
    house = House(replace(RULES, analyses=1))
    await house.join("running")
    with pytest.raises(DeadlineError):
        async with house.admission.turn(applicant(seconds_left=0.01)):
            raise AssertionError("it had no turn")
    assert await house.empty()


def reasons(*actions: Callable[[], object]) -> list[str]:
    found = []
    for action in actions:
        try:
            action()
            found.append("")
        except BonafideError as error:
            found.append(error.reason)
    return found


def test_bytes_count_against_the_budgets_and_come_back() -> None:
    admission = House(replace(RULES, spool_bytes=600, memory_bytes=400)).admission
    with admission.storage() as first, admission.storage() as second, admission.storage() as third:
        found = reasons(lambda: first.hold(300), lambda: first.hold(200), lambda: second.hold(301))
        assert found == ["", "", "SPOOL_FULL"]
        assert reasons(lambda: second.hold(300), lambda: third.hold(1)) == ["", "SPOOL_FULL"]
        assert admission.state.spool_bytes == 600
    with ExitStack() as held:
        found = reasons(*(lambda: held.enter_context(admission.storage()).hold(50) for _ in range(3)))
        assert found == ["", "", "MEMORY_FULL"]
    assert (admission.state.spool_bytes, admission.state.memory_bytes) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["join", "end", "cancel", "wait"])), max_size=60))
@settings(max_examples=50, deadline=None)
def test_no_order_of_events_loses_a_place(events: list[tuple[int, str]]) -> None:
    async def story() -> None:
        house = House()
        for index, event in events:
            name = str(index)
            if event == "join" and name not in house.tasks:
                await house.join(name, applicant("ab"[index % 2], list(Priority)[index % 3]))
            elif event == "end" and name in house.begun:
                await house.end(name)
            elif event == "cancel" and name in house.tasks:
                house.tasks[name].cancel()  # not awaited: the turn may come at the same moment
            else:
                house.time.seconds += index
            state = house.admission.state
            assert state.analyzing <= RULES.analyses
        await house.settle()
        state = house.admission.state
        assert state.analyzing == min(sum(not task.done() for task in house.tasks.values()), RULES.analyses)
        assert await house.empty()

    asyncio.run(story())
