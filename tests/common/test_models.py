"""The repository serves only what its cards describe, byte for byte."""

import hashlib
import json
from pathlib import Path

import pytest

from services.common.errors import ModelNotDeployedError, ModelRepositoryError
from services.common.models import ModelRepository


def make_model(root: Path, name: str = "m", **changes: object) -> Path:
    file = root / name / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    card: dict[str, object] = {
        "name": name,
        "version": "1",
        "sha256": hashlib.sha256(b"weights").hexdigest(),
        "trained_on": "something",
        "headline": "AUC 0.9",
        "licence": "Apache-2.0",
    }
    card.update(changes)
    (root / name / "card.json").write_text(json.dumps(card))
    return file


def test_verified_model_is_served(tmp_path: Path) -> None:
    make_model(tmp_path)
    assert ModelRepository(tmp_path).verified("m").version == "1"


def test_one_altered_byte_is_refused_by_name(tmp_path: Path) -> None:
    file = make_model(tmp_path)
    file.write_bytes(b"weighty")
    with pytest.raises(ModelRepositoryError, match=r"m/1/model\.onnx"):
        ModelRepository(tmp_path).verified("m")


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    make_model(tmp_path).unlink()
    with pytest.raises(ModelRepositoryError, match=r"m/1/model\.onnx is missing"):
        ModelRepository(tmp_path).verified("m")


@pytest.mark.parametrize("change", [{"trained_on": ""}, {"headline": ""}])
def test_untrained_model_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    make_model(tmp_path, **change)
    with pytest.raises(ModelRepositoryError, match="trained"):
        ModelRepository(tmp_path).verified("m")


def test_absent_required_and_absent_optional_differ(tmp_path: Path) -> None:
    make_model(tmp_path)
    repository = ModelRepository(tmp_path)
    assert set(repository.verify_all(["m"], ["temporal"])) == {"m"}
    with pytest.raises(ModelNotDeployedError):
        repository.verify_all(["temporal"])
