"""The measure of the soak: a leak shows, a look at a busy moment does not."""

from __future__ import annotations

from benchmarks.reliability.soak import growth_percent


def test_a_leak_shows() -> None:
    assert growth_percent([1000 + 10 * step for step in range(19)]) > 10


def test_one_busy_moment_is_no_growth() -> None:
    assert growth_percent([1000] * 18 + [1100]) == 0


def test_a_single_look_has_not_grown() -> None:
    assert growth_percent([1000]) == 0
