"""Goals are judged as they were set, and a figure that was not measured is never shown as one."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.visual.ensemble import FILE
from training.evaluation.goals import boosted, ensemble, goals
from training.metrics import Measure

pytestmark = pytest.mark.training

FIGURE = {"auc": {"value": 0.7, "low": 0.6, "high": 0.8, "n": 10}}


def test_what_misses_its_goal_is_said_to() -> None:
    table = {
        "frame": {"dfdc_faces_val": {"auc": Measure(0.95, 0.93, 0.96, 10)}},
        "audio": {
            "all": {"eer": Measure(0.25, 0.22, 0.28, 10)},
            "within_source_mean": {"eer": Measure(0.16, 0.1, 0.2, 9)},
        },
    }
    lines = [line for line in goals(table).splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 3
    assert lines[0].endswith("| reached |")
    assert lines[1].endswith("| **not reached** |")
    assert lines[2].endswith("| reached, the interval holds both |")


def test_the_ensemble_is_shown_with_cost_and_with_who_was_left_out(tmp_path: Path) -> None:
    assert ensemble(tmp_path) == ""
    content = {
        "familiar": {"bias": 0.0, "weights": {"frame_classifier": 0.9}},
        "unfamiliar": {"bias": 0.1, "weights": {"frame_classifier": 0.3}},
        "flattered": ["mesonet"],
        "milliseconds_a_crop": {"frame_classifier": 20.0, "meso4": 2.0},
        "cost_over_frame_classifier": 1.0,
        "metrics": {"all": FIGURE, "mesonet": FIGURE},
        "metrics_frame_classifier_alone": {"all": FIGURE, "mesonet": FIGURE},
        "command": "make it",
        "split": "by group",
    }
    (tmp_path / FILE).write_text(json.dumps(content))
    page = ensemble(tmp_path)
    assert "| frame_classifier | 0.900 | 0.300 | 20.0 |" in page
    assert "| meso4 | not asked | not asked | 2.0 |" in page
    assert "| all | " in page
    assert "| mesonet, without the members that began there | " in page


@pytest.mark.parametrize("wins", [True, False])
def test_boosted_heads_stand_beside_the_logistic_ones(tmp_path: Path, *, wins: bool) -> None:
    gain = {"value": 0.0, "low": -0.1, "high": 0.1, "n": 10}
    held_out = {"held_out": {"all": FIGURE}, "auc_gain": gain, "auc_gain_on_sources": gain}
    other: dict[str, Any] = {"scores": held_out, "scores_and_statistics": held_out, "wins": wins}
    (tmp_path / "frame.json").write_text(json.dumps({"training": {"held_out": {"all": FIGURE}, "boosted": other}}))
    page = boosted(tmp_path)
    assert f"in {int(wins)} of 1 heads" in page
    assert ("(frame)" in page) is wins
    assert "| frame | all | 0.700 (0.60–0.80) |" in page
