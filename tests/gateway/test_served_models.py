"""The fingerprint moves with the cards."""

import json
from pathlib import Path

from services.common.models import ModelRepository
from services.common.rollout_plan import RolloutFile
from services.gateway.served_models import ModelFingerprint, ServedModels
from tests.common import versions
from tests.common.test_models import make_model


def served(root: Path) -> ServedModels:
    return ServedModels(ModelRepository(root), RolloutFile(None))


def change_card(card: Path) -> None:
    card.write_text(json.dumps(json.loads(card.read_text()) | {"operating_point": 0.5}))


async def test_it_changes_with_any_card_and_only_then(tmp_path: Path) -> None:
    make_model(tmp_path)
    fingerprint = ModelFingerprint(served(tmp_path), 0.0)
    before = await fingerprint.current()
    assert before == await fingerprint.current()
    change_card(tmp_path / "m" / "card.json")
    assert await fingerprint.current() != before


async def test_it_looks_at_the_disk_now_and_then_only(tmp_path: Path) -> None:
    fingerprint = ModelFingerprint(served(tmp_path), 1e9)
    assert await fingerprint.current() == ""
    make_model(tmp_path)
    assert await fingerprint.current() == ""


async def test_it_changes_with_the_stable_version_and_not_with_a_candidate(tmp_path: Path) -> None:
    root, file = tmp_path / "models", tmp_path / "rollout.json"
    versions.repository(root)
    versions.write_version(root, "2", versions.scorer(2.0))
    models = ServedModels(ModelRepository(root), RolloutFile(file))
    fingerprint = ModelFingerprint(models, 0.0)
    before = await fingerprint.current()
    versions.write_plan(file, scorer=versions.candidate("canary", 0.5))
    assert await fingerprint.current() == before
    versions.write_plan(file, scorer={"stable": "2"})
    promoted = await fingerprint.current()
    assert promoted != before
    assert [card.version for card in models.cards()] == ["2"]
    file.write_text("{")
    assert await fingerprint.current() == promoted
