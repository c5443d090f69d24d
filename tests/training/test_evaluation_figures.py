"""Figures in texts and cards come from the summary, and from nowhere else."""

import json
from pathlib import Path

import pytest

from training.evaluation.figures import FigureError, filled, main

pytestmark = pytest.mark.training

FIGURE = {"value": 0.8765, "low": 0.8, "high": 0.9, "n": 10}
TABLE = {"frame": {"dfdc_faces_val": {"auc": FIGURE, "brier": FIGURE}, "jpeg_30": {"auc": FIGURE}}}
MARKED = "AUC <!-- figure frame dfdc_faces_val auc -->0.999<!-- end -->, and <!-- figures -->\nold\n<!-- end --> after"


def test_marked_figures_are_filled_and_filling_again_changes_nothing() -> None:
    text = filled(MARKED, TABLE)
    assert "<!-- figure frame dfdc_faces_val auc -->0.876 (95 % 0.800–0.900)<!-- end -->" in text
    assert "| AUC | 0.876 (95 % 0.800–0.900) | 10 |" in text
    assert text.endswith(" after")
    assert "0.999" not in text
    assert filled(text, TABLE) == text


def test_a_figure_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(FigureError, match="fused all auc"):
        filled("<!-- figure fused all auc --><!-- end -->", TABLE)


def test_texts_and_cards_are_checked_before_and_after(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(TABLE))
    text, card = tmp_path / "README.md", tmp_path / "models" / "frame_classifier" / "card.json"
    text.write_text(MARKED)
    card.parent.mkdir(parents=True)
    card.write_text('{"name": "frame_classifier"}')
    arguments = [str(text), "--summary", str(tmp_path / "summary.json"), "--models", str(tmp_path / "models")]
    assert main([*arguments, "--check"]) == 1
    assert text.read_text() == MARKED
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    assert json.loads(card.read_text())["evaluation"] == {"dfdc_faces_val": {"auc": FIGURE}}
