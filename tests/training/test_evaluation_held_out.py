"""On the shared data, figures of models that saw all of it come from their training's held-out groups."""

import json
from pathlib import Path

import pytest

from training.data import data_root
from training.evaluation.discovery import discover, held_out_part
from training.evaluation.held_out import largest_head, statements, with_speech
from training.evaluation.rows import BRANCHES
from training.metrics import Measure

pytestmark = pytest.mark.training

FIGURE = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 20}


def write_card(root: Path, name: str, metrics: dict[str, object]) -> None:
    facts = {"version": "1", "sha256": "0", "trained_on": "all", "headline": "so", "licence": "MIT", "split": "folds."}
    (root / name).mkdir(parents=True)
    (root / name / "card.json").write_text(json.dumps({**facts, "metrics": metrics}))


def write_head(folder: Path, name: str, **training: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"branches": name.split("_"), "training": training}))


def test_flattering_figures_are_replaced(tmp_path: Path) -> None:
    models, heads = tmp_path / "models", tmp_path / "heads"
    write_card(models, "spoof_classifier", {"all": {"eer": FIGURE}, "mp3_16k": {"eer": FIGURE}})
    write_head(heads, "frame_audio", held_out={"all": {"auc": FIGURE}}, rows={"real": 3}, split="5 folds")
    write_head(heads, "patch_frame_audio", held_out={"all": {"auc": FIGURE}}, note="borrowed")
    flattering = {branch: {"all": {"auc": Measure(1.0, 1.0, 1.0, 9)}} for branch in BRANCHES}
    flattering["audio"]["clips"] = {}
    fair = with_speech(flattering, models)
    assert fair["frame"] == flattering["frame"], "the still networks are measured on what they never saw"
    assert fair["audio"].keys() == {"all", "clips", "degraded_mp3_16k"}
    assert fair["audio"]["all"] == {"eer": Measure(**FIGURE)}
    assert largest_head(heads)[0] == "frame_audio"
    assert len(statements(models, heads)) == 2


@pytest.mark.skipif(not data_root().is_dir(), reason="needs the shared data (BONAFIDE_DATA)")
def test_of_the_shared_faces_only_fair_parts_are_measured() -> None:
    part = held_out_part(discover(data_root()))
    assert {faces.name for faces in part.faces} == {
        "dfdc_faces_val",
        "mesonet_faces_train",
        "manipulated_faces_held_out",
    }
    assert not part.speech
    assert part.clips
