"""The whole evaluation on a directory that nobody prepared for it: pictures, speech and clips of our own making."""

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from skimage import data as pictures

from services.common.errors import BonafideError
from services.common.media import SAMPLE_RATE
from services.common.models import ModelRepository
from tests.audio.conftest import babble
from tests.fusion.conftest import write_heads
from tests.media_factory import SOUND_RATE, Clip
from tests.visual.conftest import FACE_MODELS, MODELS, add_model, link_models, redness_graph
from training.evaluation.__main__ import main
from training.evaluation.cache import BlobCache, ScoreCache, digest
from training.evaluation.discovery import discover

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]

SIDE = 224
HEADER = ("file", "label", "group", "source", "method", "offset_ms")


def portrait(*, red: bool, index: int = 0) -> np.ndarray:
    """The face of a public portrait, a little different each time; red means fake to the models here."""
    cut = np.asarray(Image.fromarray(pictures.astronaut()[0:300, 90:390]).resize((SIDE, SIDE))).astype(np.float32)
    cut[..., 0] += 40 if red else -40
    return np.clip(cut + index, 0, 255).astype(np.uint8)


def table(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), encoding="utf-8")


def archive(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)


def flac(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, SAMPLE_RATE, format="FLAC")
    return stream.getvalue()


def clip(*, red: bool, seed: int) -> bytes:
    speech = np.repeat(babble(3.0, seed), SOUND_RATE // SAMPLE_RATE)
    picture = portrait(red=red, index=seed)
    return Clip(frames=50, width=SIDE, height=SIDE, sound=speech, picture=lambda *_: picture).bytes()


def write_faces(folder: Path) -> None:
    files, rows = {}, []
    for index in range(6):
        for red in (False, True):
            stream = io.BytesIO()
            Image.fromarray(portrait(red=red, index=index)).save(stream, format="JPEG", quality=95)
            label = "fake" if red else "real"
            files[f"{label}/{index}.jpg"] = stream.getvalue()
            rows.append((f"{label}/{index}.jpg", label, f"face{index}", "press", label, ""))
    rows.append(("real/missing.jpg", "real", "face9", "press", "real", ""))
    files["real/broken.jpg"] = b"no picture"
    rows.append(("real/broken.jpg", "real", "face8", "press", "real", ""))
    table(folder / "portraits.tsv", rows)
    archive(folder / "portraits.zip", files)


def write_speech(folder: Path) -> None:
    files, rows = {}, []
    for index in range(12):
        label = "spoof" if index % 2 else "bonafide"
        files[f"{index}.flac"] = flac(babble(2.0, index))
        rows.append((f"{index}.flac", label, f"speaker{index}", "booth", "vocoder", ""))
    files["quiet.flac"] = flac(np.zeros(SAMPLE_RATE, np.float32))
    rows.append(("quiet.flac", "bonafide", "speaker99", "booth", "", ""))
    table(folder / "voices.tsv", rows)
    archive(folder / "voices.zip", files)


def write_clips(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = []
    for seed in range(3):
        (folder / f"real{seed}.mp4").write_bytes(clip(red=False, seed=seed))
        rows.append((f"real{seed}.mp4", "real", f"person{seed}", "studio", "real", "0"))
    (folder / "fake.mp4").write_bytes(clip(red=True, seed=3))
    rows.append(("fake.mp4", "fake", "person1", "studio", "painted", "0"))
    (folder / "damaged.mp4").write_bytes(b"no clip at all")
    rows.append(("damaged.mp4", "fake", "person2", "studio", "painted", "0"))
    rows.append(("same.mp4", "real_shifted", "person0", "studio", "shift", "0"))
    (folder / "same.mp4").write_bytes((folder / "real0.mp4").read_bytes())
    table(folder / "clips.tsv", rows)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real face and speech models, and classifiers that call red faces fake."""
    try:
        ModelRepository(MODELS).verify_all((*FACE_MODELS, "spoof_classifier"))
    except BonafideError as error:
        pytest.skip(f"needs the model repository: {error}")
    root = tmp_path_factory.mktemp("models")
    link_models(MODELS, root)
    add_model(root, "patch_gate", redness_graph("patch_logits"))
    add_model(root, "frame_classifier", redness_graph("embedding"))
    return root


@pytest.fixture(scope="module")
def evaluated(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one evaluation."""
    root = tmp_path_factory.mktemp("evaluation")
    write_faces(root / "data" / "somewhere" / "deep")
    write_speech(root / "data" / "talk")
    write_clips(root / "data" / "clips")
    table(root / "data" / "strange.tsv", [("a", "b")], header=("one", "two"))
    heads = write_heads(root / "heads")
    arguments = ["--data", str(root / "data"), "--out", str(root / "out"), "--cache", str(root / "cache")]
    arguments += ["--models", str(models), "--heads", str(heads), "--processes", "1", "--no-robustness"]
    assert main(arguments) == 0
    return root


def summary(evaluated: Path) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    return json.loads((evaluated / "out" / "summary.json").read_text())


def test_the_summary_has_the_promised_form(evaluated: Path) -> None:
    found = summary(evaluated)
    assert list(found) == ["frame", "patch", "temporal", "audio", "sync", "fused"]
    for branch in found.values():
        for source in branch.values():
            for figure in source.values():
                assert figure.keys() == {"value", "low", "high", "n"}
                assert figure["low"] <= figure["value"] <= figure["high"]


def test_faces_are_found_in_any_directory_and_judged(evaluated: Path) -> None:
    frame = summary(evaluated)["frame"]
    assert frame["portraits"]["auc"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 12}
    assert frame["all"] == frame["portraits"]


def test_speech_is_reported_by_source_and_silence_is_left_out(evaluated: Path) -> None:
    audio = summary(evaluated)["audio"]
    assert {"all", "voices", "booth", "within_source_mean"} <= audio.keys()
    assert audio["all"]["auc"]["n"] == 12


def test_real_clips_are_forged_where_the_set_lacks_a_kind(evaluated: Path) -> None:
    fused = summary(evaluated)["fused"]
    assert {"all", "clips", "generated", "dubbed", "shifted", "still_with_speech"} <= fused.keys()
    assert fused["dubbed"]["auc"]["n"] == 6
    assert fused["generated"]["auc"]["value"] == 1
    assert fused["clips"]["accuracy"]["n"] == 4
    assert summary(evaluated)["frame"]["generated"]["auc"]["value"] == 1


def test_the_report_says_what_was_left_out(evaluated: Path) -> None:
    text = (evaluated / "out" / "README.md").read_text()
    assert "1 held too little speech to be scored" in text
    assert "Refused by the gateway: 1 clips" in text
    assert "strange.tsv was passed over" in text
    assert "3 made here from real clips" in text
    for picture in ("roc.png", "scores.png", "reliability.png", "confusion.png", "ablation.png", "verdicts.png"):
        assert f"({picture})" in text
        assert (evaluated / "out" / picture).stat().st_size > 1000


def test_an_empty_directory_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["--data", str(tmp_path / "nowhere")]) == 2


def test_sets_with_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_speech(tmp_path / folder)
    assert [part.name for part in discover(tmp_path).speech] == ["voices", "voices_more"]


def test_scores_survive_and_a_line_cut_short_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    ScoreCache(path).put({"one": {"frame": 0.25}})
    with path.open("a") as stream:
        stream.write('{"key": "two", "val')
    found = ScoreCache(path)
    assert found["one"] == {"frame": 0.25}
    assert "two" not in found


def test_blobs_survive_and_keys_know_their_parts(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path)
    assert cache.get("ab12") is None
    cache.put("ab12", b"evidence")
    assert BlobCache(tmp_path).get("ab12") == b"evidence"
    assert digest("a", "bc") != digest("ab", "c")
