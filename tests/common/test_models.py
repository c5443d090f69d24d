"""The repository serves only what its cards describe, byte for byte."""

import hashlib
import json
from pathlib import Path

import pytest

from services.common.errors import ModelNotDeployedError, ModelRepositoryError
from services.common.models import ModelRepository
from tests.common import versions


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


def test_another_version_brings_its_card_and_its_documents(tmp_path: Path) -> None:
    repository = versions.repository(tmp_path)
    (tmp_path / "beside.json").write_text("1")
    assert repository.at({versions.MODEL: "1"}).card(versions.MODEL) == repository.card(versions.MODEL)
    versions.write_version(tmp_path, "2", versions.scorer(2.0))
    (tmp_path / versions.MODEL / "2" / "beside.json").write_text("2")
    second = repository.at({versions.MODEL: "2"})
    assert second.verified(versions.MODEL).version == "2"
    assert (repository.document("beside.json").read_text(), second.document("beside.json").read_text()) == ("1", "2")
    before, after = repository.contents(), second.contents()
    assert {name for name in before if before[name] != after[name]} == {versions.MODEL, "beside.json"}
    assert (repository.staged(versions.MODEL), repository.names()) == (["2"], [versions.MODEL])
    assert second.at({versions.MODEL: "1"}).contents() == before


def test_a_card_of_another_version_is_refused(tmp_path: Path) -> None:
    repository = versions.repository(tmp_path)
    versions.write_version(tmp_path, "2", versions.scorer(2.0))
    (tmp_path / versions.MODEL / "2").rename(tmp_path / versions.MODEL / "3")
    with pytest.raises(ModelRepositoryError, match="version 2"):
        repository.at({versions.MODEL: "3"}).card(versions.MODEL)
    with pytest.raises(ModelNotDeployedError, match="no version 2"):
        repository.at({versions.MODEL: "2"}).card(versions.MODEL)
