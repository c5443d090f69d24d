"""Turns come in proportion to weights, and nobody starves."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.fairness import TurnTaking

weights = st.dictionaries(st.sampled_from("abcde"), st.sampled_from([1.0, 2.0, 4.0, 16.0]), min_size=1)


@given(weights)
def test_turns_are_in_proportion_to_weights(shares: dict[str, float]) -> None:
    turns: TurnTaking[str] = TurnTaking()
    rounds = 200
    got = Counter(turns.pick(shares) for _ in range(rounds))
    for key, share in shares.items():
        assert abs(got[key] - rounds * share / sum(shares.values())) <= 1 + share


@given(st.lists(weights, min_size=1, max_size=60))
def test_who_keeps_waiting_is_picked_before_long(rounds: list[dict[str, float]]) -> None:
    turns: TurnTaking[str] = TurnTaking()
    passed = 0
    for shares in rounds:
        passed = 0 if turns.pick({**shares, "patient": 1.0}) == "patient" else passed + 1
        assert passed <= 5 * 16 + 5


def test_absence_saves_up_no_turns() -> None:
    turns: TurnTaking[str] = TurnTaking()
    for _ in range(100):
        turns.pick({"busy": 1.0})
    assert Counter(turns.pick({"busy": 1.0, "back": 1.0}) for _ in range(20)) == {"busy": 10, "back": 10}
