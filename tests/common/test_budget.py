"""A rate over its budget is told from bad luck."""

import random

import pytest

from services.common.budget import Budget


def outcomes_until_alarm(budget: Budget, rate: float, seed: int, most: int) -> int:
    chance = random.Random(seed)
    return next((at for at in range(1, most + 1) if budget.add(bad=chance.random() < rate)), most)


def test_one_that_only_fails_is_caught_at_once_but_not_before_the_minimum() -> None:
    assert outcomes_until_alarm(Budget(0.02, minimum=1), 1.0, 0, 100) == 9
    assert outcomes_until_alarm(Budget(0.02, minimum=20), 1.0, 0, 100) == 20


@pytest.mark.parametrize(("rate", "most"), [(0.5, 40), (0.2, 120), (0.1, 400)])
def test_the_worse_the_sooner(rate: float, most: int) -> None:
    runs = [outcomes_until_alarm(Budget(0.02, minimum=1), rate, seed, 5000) for seed in range(40)]
    assert sum(runs) / len(runs) < most


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_bad_luck_at_the_edge_of_the_budget_is_rarer_than_alpha(rate: float) -> None:
    runs = [outcomes_until_alarm(Budget(rate, 1, alpha=0.01), rate, seed, 2000) for seed in range(60)]
    assert sum(runs) / len(runs) > 100


def test_half_the_budget_never_ends_a_trial() -> None:
    assert outcomes_until_alarm(Budget(0.02, minimum=1), 0.01, 3, 20_000) == 20_000


def test_a_good_past_buys_nothing() -> None:
    budget = Budget(0.02, minimum=1)
    for _ in range(10_000):
        budget.add(bad=False)
    assert outcomes_until_alarm(budget, 1.0, 0, 100) == 9
