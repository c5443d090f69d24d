"""The composed service is ready with models that can be trusted, and says which file is not."""

import json
import shutil
from pathlib import Path

import pytest

from services.common.errors import ModelNotDeployedError, ModelRepositoryError
from services.visual.__main__ import build
from services.visual.settings import VisualSettings


@pytest.fixture
def copied(colour_judges: Path, tmp_path: Path) -> Path:
    return shutil.copytree(colour_judges, tmp_path / "models")


async def test_trusted_models_make_it_ready(copied: Path) -> None:
    service = build(VisualSettings(model_repository=copied))
    assert service.names == ("bonafide.v1.VisualService",)
    await service.ready()


async def test_one_altered_byte_keeps_it_from_being_ready(copied: Path) -> None:
    file = copied / "face_detector" / "1" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelRepositoryError, match=r"face_detector/1/model\.onnx"):
        await build(VisualSettings(model_repository=copied)).ready()


async def test_a_missing_required_model_keeps_it_from_being_ready(copied: Path) -> None:
    shutil.rmtree(copied / "frame_classifier")
    with pytest.raises(ModelNotDeployedError, match="frame_classifier"):
        await build(VisualSettings(model_repository=copied)).ready()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONAFIDE_VISUAL_MAX_TRACKS", "3")
    assert VisualSettings().max_tracks == 3


async def test_an_ensemble_of_other_networks_keeps_it_from_being_ready(copied: Path) -> None:
    alone = {"bias": 0.0, "weights": {"frame_classifier": 1.0}}
    content = {"familiar": alone, "members": {"frame_classifier": "0" * 64}}
    (copied / "frame_ensemble.json").write_text(json.dumps(content))
    with pytest.raises(ModelRepositoryError, match="another frame_classifier"):
        await build(VisualSettings(model_repository=copied)).ready()
