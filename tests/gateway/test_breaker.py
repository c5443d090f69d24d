"""The circuit: what it lets through, and that no order of events makes it forget its promises."""

import asyncio
import types
from collections.abc import Coroutine, Generator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.common.errors import InvalidInputError, UnavailableError
from services.gateway.breaker import BreakerRule, CircuitBreaker, CircuitOpenError, State

RULE = BreakerRule(window_seconds=30.0, least_calls=4, failure_share=0.5, pause_seconds=5.0)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def unwell(error: BaseException) -> bool:
    return isinstance(error, UnavailableError)


def finish(call: Coroutine[None, None, str]) -> str:
    """Run a call that never waits."""
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    return str(ended.value.value)


async def call(breaker: CircuitBreaker, error: BaseException | None = None) -> str:
    async def work() -> str:
        if error is not None:
            raise error
        return "answer"

    try:
        return await breaker.call(work, unwell=unwell)
    except (UnavailableError, InvalidInputError) as raised:
        return type(raised).__name__


def opened() -> tuple[CircuitBreaker, Clock]:
    clock = Clock()
    breaker = CircuitBreaker("it", RULE, clock)
    for _ in range(4):
        finish(call(breaker, UnavailableError("gone")))
    assert breaker.state is State.OPEN
    return breaker, clock


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=40))
def test_it_opens_exactly_when_the_rule_says(calls: list[tuple[bool, float]]) -> None:
    clock = Clock()
    breaker = CircuitBreaker("it", RULE, clock)
    ended: list[tuple[float, bool]] = []
    for failed, pause in calls:
        clock.seconds += pause
        finish(call(breaker, UnavailableError("gone") if failed else None))
        ended.append((clock.seconds, failed))
        recent = [failed for when, failed in ended if when > clock.seconds - RULE.window_seconds]
        should_open = len(recent) >= RULE.least_calls and sum(recent) >= RULE.failure_share * len(recent)
        assert (breaker.state is State.OPEN) is should_open
        if should_open:
            return


async def test_errors_that_say_nothing_of_health_do_not_count() -> None:
    breaker = CircuitBreaker("it", RULE)
    for _ in range(20):
        assert await call(breaker, InvalidInputError("odd")) == "InvalidInputError"
    assert breaker.state is State.CLOSED


def test_an_open_circuit_answers_at_once_and_says_when_to_come_back() -> None:
    breaker, clock = opened()
    clock.seconds += 2.0

    async def never() -> None:
        raise AssertionError("the service was asked")

    with pytest.raises(CircuitOpenError) as refused:
        breaker.call(never, unwell=unwell).send(None)
    assert refused.value.reason == "CIRCUIT_OPEN"
    assert refused.value.retry_after_seconds == pytest.approx(3.0)


async def test_a_probe_that_is_cancelled_leaves_the_question_open() -> None:
    clock = Clock()
    breaker = CircuitBreaker("it", RULE, clock)
    for _ in range(4):
        await call(breaker, UnavailableError("gone"))
    clock.seconds += 5.0
    probe = asyncio.create_task(breaker.call(asyncio.Event().wait, unwell=unwell))
    await asyncio.sleep(0)
    assert await call(breaker) == "CircuitOpenError"  # one probe at a time
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert breaker.state is State.HALF_OPEN
    assert await call(breaker) == "answer"
    assert breaker.state is State.CLOSED


def test_failed_probes_double_the_pause_up_to_a_limit() -> None:
    breaker, clock = opened()
    pauses = []
    for _ in range(6):
        start = clock.seconds
        while breaker.state is State.OPEN:
            clock.seconds += 0.5
        pauses.append(clock.seconds - start)
        finish(call(breaker, UnavailableError("gone")))
    assert pauses == [5.0, 10.0, 20.0, 40.0, 40.0, 40.0]


@types.coroutine
def until_told() -> Generator[None, None, None]:
    """Waits until it is resumed, or until an error is thrown in."""
    yield


class Circuit(RuleBasedStateMachine):
    """Calls begin, end and are abandoned in any order while time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = CircuitBreaker("it", RULE, self.clock)
        self.under_way: list[tuple[Coroutine[None, None, None], State]] = []

    @rule(seconds=st.floats(0.1, 12))
    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @rule()
    def begin(self) -> None:
        state = self.breaker.state
        probes = sum(begun is State.HALF_OPEN for _, begun in self.under_way)
        call = self.breaker.call(until_told, unwell=unwell)
        if state is State.CLOSED or (state is State.HALF_OPEN and not probes):
            call.send(None)
            self.under_way.append((call, state))
        else:
            with pytest.raises(CircuitOpenError):
                call.send(None)

    @precondition(lambda self: self.under_way)
    @rule(
        which=st.integers(0, 99),
        how=st.sampled_from([None, UnavailableError("gone"), InvalidInputError("odd"), asyncio.CancelledError()]),
    )
    def end(self, which: int, how: BaseException | None) -> None:
        call, begun = self.under_way.pop(which % len(self.under_way))
        with pytest.raises(type(how) if how else StopIteration):
            call.send(None) if how is None else call.throw(how)
        if begun is State.HALF_OPEN:
            wanted = {type(None): State.CLOSED, UnavailableError: State.OPEN}.get(type(how), State.HALF_OPEN)
            assert self.breaker.state is wanted

    @invariant()
    def one_probe_at_most(self) -> None:
        assert sum(begun is State.HALF_OPEN for _, begun in self.under_way) <= 1

    def teardown(self) -> None:
        for call, _ in self.under_way:
            call.close()


Circuit.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestCircuit = Circuit.TestCase
