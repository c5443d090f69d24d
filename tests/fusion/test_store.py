"""Heads belong to the models they were fitted on: others are refused, by name and with a reason of their own."""

import json
from pathlib import Path

import pytest

from services.common.errors import ModelRepositoryError
from services.common.models import ModelRepository
from services.fusion.heads import branch_sets, head_key
from services.fusion.store import HeadStore
from tests.fusion.conftest import resign

SERVED = {"frame_classifier": "ab" * 32, "sync": "cd" * 32}


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    """Cards of two models; no networks are needed to compare hashes."""
    root = tmp_path / "models"
    for name, digest in SERVED.items():
        (root / name).mkdir(parents=True)
        card = {"version": "1", "sha256": digest, "trained_on": "x", "headline": "y", "licence": "z"}
        (root / name / "card.json").write_text(json.dumps(card))
    return ModelRepository(root)


def record(directory: Path, models: dict[str, str]) -> None:
    """Write into every head what it was fitted on."""
    for branches in branch_sets():
        name = f"{head_key(branches)}.json"
        content = json.loads((directory / name).read_text())
        content["training"]["models"] = models
        (directory / name).write_text(json.dumps(content))
        resign(directory, name)


def test_heads_of_the_served_models_are_loaded(heads_directory: Path, repository: ModelRepository) -> None:
    record(heads_directory, SERVED)
    store = HeadStore(heads_directory, repository=repository)
    store.refresh()
    assert len(store.heads) == len(branch_sets())


def test_heads_of_another_model_are_refused_by_name(heads_directory: Path, repository: ModelRepository) -> None:
    record(heads_directory, SERVED | {"sync": "ef" * 32})
    with pytest.raises(ModelRepositoryError, match="another sync") as caught:
        HeadStore(heads_directory, repository=repository).refresh()
    assert caught.value.reason == "HEADS_OF_OTHER_MODELS"


def test_a_model_that_is_not_served_is_no_fault(heads_directory: Path, repository: ModelRepository) -> None:
    record(heads_directory, SERVED | {"temporal": "ef" * 32})
    HeadStore(heads_directory, repository=repository).refresh()


def test_a_document_that_the_heads_never_met_is_refused(heads_directory: Path, repository: ModelRepository) -> None:
    record(heads_directory, SERVED)
    (repository.root / "frame_ensemble.json").write_text("{}")
    with pytest.raises(ModelRepositoryError, match=r"another frame_ensemble\.json"):
        HeadStore(heads_directory, repository=repository).refresh()


def test_what_was_loaded_stays_when_a_model_is_exchanged(heads_directory: Path, repository: ModelRepository) -> None:
    record(heads_directory, SERVED)
    store = HeadStore(heads_directory, repository=repository)
    store.refresh()
    card = repository.root / "sync" / "card.json"
    card.write_text(card.read_text().replace("cd", "ef"))
    with pytest.raises(ModelRepositoryError):
        store.refresh()
    assert len(store.heads) == len(branch_sets())
