"""Each step of a roll-out does its one thing, and refuses what would not work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from bonafide.cli import main
from bonafide.models_trials import trials_in
from services.common.models import ModelRepository
from services.common.rollout_plan import Mode, RolloutPlan, parse_plan
from services.common.telemetry import Telemetry
from services.common.trial import Trial
from tests.common.versions import MODEL, candidate, repository, scorer, write_version


@pytest.fixture
def root(tmp_path: Path) -> Path:
    repository(tmp_path / "models")
    write_version(tmp_path / "trained", "1", scorer(1.05), at_root=True)
    (tmp_path / "trained" / "beside.json").write_text(
        json.dumps({"fitted_on": ModelRepository(tmp_path / "trained").card(MODEL).sha256})
    )
    return tmp_path


def step(root: Path, *words: str) -> int:
    places = ["--repository", str(root / "models"), "--file", str(root / "rollout.json")]
    return main(["models", *words, *places])


def plan(root: Path) -> RolloutPlan:
    return parse_plan((root / "rollout.json").read_bytes())


def staged(root: Path) -> Path:
    assert step(root, "stage", MODEL, "2", "--from", str(root / "trained" / MODEL)) == 0
    return root / "models" / MODEL / "2"


def test_the_way_of_a_version(root: Path) -> None:
    folder = staged(root)
    assert sorted(path.name for path in folder.iterdir()) == ["beside.json", "card.json", "model.onnx"]
    assert ModelRepository(root / "models", {MODEL: "2"}).verified(MODEL).version == "2"
    assert not (root / "rollout.json").exists()
    assert step(root, "shadow", MODEL, "2") == 0
    assert plan(root).candidates[MODEL].mode is Mode.SHADOW
    assert step(root, "canary", MODEL, "2", "--share", "0.1", "--errors", "0.05") == 0
    assert (plan(root).candidates[MODEL].share, plan(root).candidates[MODEL].budgets.errors) == (0.1, 0.05)
    assert step(root, "promote", MODEL) == 0
    assert (plan(root).stable, plan(root).candidates) == ({MODEL: "2"}, {})
    assert step(root, "retire", MODEL, "2") == 2
    assert step(root, "rollback", MODEL) == 0
    assert plan(root) == RolloutPlan()
    assert step(root, "retire", MODEL, "2") == 0
    assert not folder.exists()


def test_a_candidate_is_dropped_before_what_is_stable(root: Path) -> None:
    staged(root)
    step(root, "shadow", MODEL, "2")
    step(root, "promote", MODEL)
    write_version(root / "models", "3", scorer(1.0))
    step(root, "shadow", MODEL, "3")
    assert step(root, "rollback", MODEL) == 0
    assert plan(root).stable == {MODEL: "2"}


def test_back_is_to_the_version_before_and_then_to_the_root_card(root: Path) -> None:
    staged(root)
    write_version(root / "models", "3", scorer(1.0))
    for version in ("2", "3"):
        assert step(root, "shadow", MODEL, version) == 0
        assert step(root, "promote", MODEL) == 0
    assert step(root, "retire", MODEL, "2") == 2
    assert step(root, "rollback", MODEL) == 0
    assert plan(root).stable == {MODEL: "2"}
    assert step(root, "rollback", MODEL) == 0
    assert plan(root) == RolloutPlan()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("shadow", MODEL, "7"), "no version 7"),
        (("shadow", "nobody", "2"), "no model named nobody"),
        (("promote", MODEL), "no candidate"),
        (("retire", MODEL, "1"), "was not staged"),
        (("canary", MODEL, "1", "--share", "0.1"), "is the stable version"),
        (("stage", MODEL, "1", "--from", "TRAINED"), "is taken"),
        (("stage", MODEL, "zwei", "--from", "TRAINED"), "whole number"),
        (("stage", "other", "2", "--from", "TRAINED"), "has no other"),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    trained = str(root / "trained" / MODEL)
    assert step(root, *(trained if word == "TRAINED" else word for word in words)) == 2
    assert says in capsys.readouterr().err
    assert not (root / "rollout.json").exists()
    assert not list((root / "models").rglob(".draft*"))


@pytest.mark.parametrize("content", [b"junk", scorer(float("nan"))])
def test_a_network_that_does_not_run_is_not_staged(root: Path, content: bytes) -> None:
    write_version(root / "bad", "1", content, at_root=True)
    assert step(root, "stage", MODEL, "2", "--from", str(root / "bad" / MODEL)) == 2
    assert [path.name for path in (root / "models" / MODEL).iterdir() if path.is_dir()] == ["1"]


def test_an_altered_network_is_not_staged(root: Path) -> None:
    file = root / "trained" / MODEL / "1" / "model.onnx"
    file.write_bytes(file.read_bytes() + b"!")
    assert step(root, "stage", MODEL, "2", "--from", str(root / "trained" / MODEL)) == 2


def test_more_than_all_clips_are_not_given(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    staged(root)
    assert step(root, "canary", MODEL, "2", "--share", "2") == 2
    assert "candidate.share" in capsys.readouterr().err


def test_a_file_that_is_no_plan_is_left_as_it_is(root: Path) -> None:
    staged(root)
    (root / "rollout.json").write_text("mine")
    assert step(root, "shadow", MODEL, "2") == 2
    assert (root / "rollout.json").read_text() == "mine"


def test_how_candidates_do_is_read_from_metrics(root: Path) -> None:
    telemetry = Telemetry("visual")
    found = parse_plan(json.dumps({"format": 1, "models": {MODEL: candidate("canary", 0.5, minimum=1)}})).candidates
    trial = Trial(MODEL, found[MODEL], ModelRepository(root / "models"), telemetry)
    trial.run()
    for _ in range(4):
        trial.note_success()
        trial.note_difference(0.1)
    (report,) = trials_in("here", generate_latest(telemetry.registry).decode())
    assert str(report) == "here  scorer/2  answers 0.5 of the clips; 4 compared, 0.100 apart on average; 0 failed"
    for _ in range(20):
        trial.note_failure()
    (report,) = trials_in("here", generate_latest(telemetry.registry).decode())
    assert "rolled back (ERRORS)" in str(report)
    assert report.errors == 20
