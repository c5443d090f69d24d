"""The rollout file is read as it is meant, or refused with the place that is wrong."""

import json
from pathlib import Path

import pytest

from services.common.errors import ModelRepositoryError
from services.common.rollout_plan import (
    Budgets,
    Candidate,
    Mode,
    ModelPlan,
    RolloutFile,
    RolloutPlan,
    dump_plan,
    parse_plan,
    position,
)
from tests.common.versions import candidate, write_plan

CLIPS = [f"{number:064x}" for number in range(4000)]


def plan(**models: object) -> RolloutPlan:
    return parse_plan(json.dumps({"format": 1, "models": models}))


def test_what_is_written_is_read_again() -> None:
    made = RolloutPlan(models={"m": ModelPlan("1", Candidate("2", Mode.CANARY, 0.05, Budgets(errors=0.01)))})
    assert parse_plan(dump_plan(made)) == made
    assert made.stable == {"m": "1"}


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"m": {"stable": "01"}}, "stable"),
        ({"m": {"stable": "../1"}}, "stable"),
        ({"../m": {}}, "models"),
        ({"m": {"candidate": {"version": "2", "mode": "loud", "share": 0.1}}}, "mode"),
        ({"m": candidate("canary", 1.5)}, "share"),
        ({"m": candidate("canary", 0.5, erors=0.1)}, "erors"),
        ({"m": candidate("canary", 0.5, errors=0)}, "errors"),
        ({"m": {"stable": "2", **candidate("shadow")}}, "stable version"),
        ({"m": candidate("canary", 0.6), "n": candidate("canary", 0.6)}, "more than 1"),
    ],
)
def test_a_mistake_is_named(models: dict[str, object], says: str) -> None:
    with pytest.raises(ModelRepositoryError, match=says) as refused:
        plan(**models)
    assert refused.value.reason == "ROLLOUT_INVALID"


def test_clips_are_spread_evenly_and_each_meets_one_canary_at_most() -> None:
    two = plan(a=candidate("canary", 0.2), b=candidate("canary", 0.3), c=candidate("shadow", 1.0))
    met = [two.canary_of(clip) for clip in CLIPS]
    assert met == [two.canary_of(clip) for clip in CLIPS]
    shares = {name: met.count(name) / len(met) for name in ("a", "b", "c", "")}
    assert shares == pytest.approx({"a": 0.2, "b": 0.3, "c": 0.0, "": 0.5}, abs=0.03)


def test_another_salt_shuffles_the_clips() -> None:
    low = [clip for clip in CLIPS if position(clip, "one") < 0.1]
    assert len([clip for clip in low if position(clip, "two") < 0.1]) == pytest.approx(0.1 * len(low), abs=20)


def test_a_file_is_read_when_it_changes_and_a_missing_one_plans_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rollout.json"
    reader = RolloutFile(file)
    assert reader.read() == RolloutPlan()
    write_plan(file, m={"stable": "2"})
    assert reader.read().stable == {"m": "2"}
    assert reader.read() is reader.read()
    file.write_text("{")
    for _ in range(2):
        with pytest.raises(ModelRepositoryError, match="invalid"):
            reader.read()
    write_plan(file, m={"stable": "3"})
    assert reader.read().stable == {"m": "3"}
    file.unlink()
    assert reader.read() == RolloutPlan()
