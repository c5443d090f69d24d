"""Deadlines, tries and pauses, without a network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bonafide.calls import Attempts, RetryPolicy
from bonafide.errors import BadInputError, DeadlineExceededError, OverloadedError, ServerUnreachableError


def unreachable(**more: float) -> ServerUnreachableError:
    return ServerUnreachableError("nobody", code="UNAVAILABLE", reason="UNAVAILABLE", **more)


@given(some.integers(1, 60), some.floats(0, 1, exclude_max=True))
def test_pauses_double_up_to_the_longest_and_are_spread(tried: int, draw: float) -> None:
    policy = RetryPolicy(first_pause_seconds=0.1, longest_pause_seconds=5.0)
    whole = min(0.1 * 2 ** (tried - 1), 5.0)
    assert whole / 2 <= policy.pause_seconds(tried, draw) <= whole


@given(some.floats(0.01, 5), some.floats(0, 1, exclude_max=True))
def test_a_server_is_never_asked_earlier_than_it_said(advice: float, draw: float) -> None:
    attempts = Attempts(RetryPolicy(), timeout=60, draw=lambda: draw)
    attempts.begin()
    assert advice <= attempts.pause_after(unreachable(retry_after_seconds=advice)) <= advice * 1.1 + 0.01


def test_no_pause_reaches_beyond_the_deadline() -> None:
    attempts = Attempts(RetryPolicy(), timeout=5)
    attempts.begin()
    error = unreachable(retry_after_seconds=6)
    with pytest.raises(ServerUnreachableError) as raised:
        attempts.pause_after(error)
    assert raised.value is error


def test_the_last_try_is_the_last() -> None:
    attempts = Attempts(RetryPolicy(attempts=2), timeout=60)
    attempts.begin()
    attempts.pause_after(unreachable())
    attempts.begin()
    with pytest.raises(ServerUnreachableError):
        attempts.pause_after(unreachable())


@pytest.mark.parametrize("kind", [BadInputError, OverloadedError])
def test_what_cannot_help_is_not_tried_again(kind: type[BadInputError | OverloadedError]) -> None:
    attempts = Attempts(RetryPolicy(), timeout=60)
    attempts.begin()
    with pytest.raises(kind):
        attempts.pause_after(kind("no", code="X", reason="X"))


def test_no_time_is_no_try() -> None:
    with pytest.raises(DeadlineExceededError):
        Attempts(RetryPolicy(), timeout=0).begin()
