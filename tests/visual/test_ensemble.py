"""The ensemble: weighted sums of logits, of exactly the networks that its weights were fitted on."""

import json
from pathlib import Path

import pytest

from services.common.errors import ModelRepositoryError
from services.common.evidence import Branch
from services.common.media import Frame
from services.common.models import ModelRepository
from services.visual.detection import Picture
from services.visual.ensemble import FILE, Ensemble, read_ensemble
from services.visual.scoring import FRAME_MODEL, CropScore
from tests.visual.conftest import add_model, link_models, make_pipeline, redness_graph

COMPANION = "companion"


def write_ensemble(root: Path, weights: dict[str, float], bias: float = 0.0) -> None:
    cards = ModelRepository(root)
    members = [{"model": name, "sha256": cards.card(name).sha256, "weight": own} for name, own in weights.items()]
    (root / FILE).write_text(json.dumps({"bias": bias, "members": members}))


@pytest.fixture
def judges(repository: ModelRepository, tmp_path: Path) -> Path:
    """Two judges of colour over the same crops."""
    link_models(repository.root, tmp_path)
    add_model(tmp_path, "patch_gate", redness_graph("patch_logits"))
    add_model(tmp_path, FRAME_MODEL, redness_graph("embedding"))
    add_model(tmp_path, COMPANION, redness_graph("embedding"))
    return tmp_path


def test_logits_are_weighed_and_summed() -> None:
    ensemble = Ensemble({FRAME_MODEL: 0.5, COMPANION: 2.0}, bias=-1.0)
    own = [CropScore(1, 0, 2.0), CropScore(2, 40, -4.0)]
    other = [CropScore(1, 0, 3.0), CropScore(2, 40, 0.5)]
    combined = ensemble.combine({FRAME_MODEL: own, COMPANION: other})
    assert [score.logit for score in combined] == [6.0, -2.0]
    assert [(score.track_id, score.time_us) for score in combined] == [(1, 0), (2, 40)]


def test_without_a_file_the_frame_classifier_judges_alone(judges: Path) -> None:
    ensemble = read_ensemble(ModelRepository(judges))
    assert ensemble.companions == ()
    assert ensemble.combine({FRAME_MODEL: [CropScore(1, 0, 2.5)]})[0].logit == 2.5


def test_another_network_under_a_member_s_name_is_refused(judges: Path) -> None:
    write_ensemble(judges, {FRAME_MODEL: 1.0, COMPANION: 1.0})
    card = judges / COMPANION / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"sha256": "0" * 64}))
    with pytest.raises(ModelRepositoryError, match=COMPANION):
        read_ensemble(ModelRepository(judges))


def test_a_member_that_is_not_there_is_refused(judges: Path) -> None:
    write_ensemble(judges, {FRAME_MODEL: 1.0, COMPANION: 1.0})
    (judges / COMPANION / "card.json").unlink()
    with pytest.raises(ModelRepositoryError, match="does not hold"):
        read_ensemble(ModelRepository(judges))


@pytest.mark.parametrize("text", ["[]", "{", '{"bias": 0, "members": []}', '{"bias": NaN, "members": []}'])
def test_what_is_no_ensemble_is_refused(judges: Path, text: str) -> None:
    (judges / FILE).write_text(text)
    with pytest.raises(ModelRepositoryError, match=FILE):
        read_ensemble(ModelRepository(judges))


async def test_every_member_is_asked_and_named(judges: Path, portrait: Picture) -> None:
    pictures, wanted = [Frame(0, portrait)], frozenset({Branch.FRAME})
    alone = await make_pipeline(judges).analyze(pictures, [], wanted, timeout=60)
    write_ensemble(judges, {FRAME_MODEL: 0.5, COMPANION: -0.5}, bias=0.0)
    together = await make_pipeline(judges).analyze(pictures, [], wanted, timeout=60)
    (before,) = (report for report in alone.reports if report.branch is Branch.FRAME)
    (after,) = (report for report in together.reports if report.branch is Branch.FRAME)
    assert before.score != pytest.approx(0.5, abs=1e-3)
    assert after.score == pytest.approx(0.5, abs=1e-6)
    assert after.model == f"{FRAME_MODEL}/1+{COMPANION}/1"
    assert {model.name for model in together.models} >= {FRAME_MODEL, COMPANION}


def test_a_version_brings_the_ensemble_that_was_fitted_on_it(judges: Path) -> None:
    write_ensemble(judges, {FRAME_MODEL: 1.0, COMPANION: 0.5})
    repository, folder = ModelRepository(judges), judges / FRAME_MODEL / "2"
    folder.mkdir()
    card = json.loads((judges / FRAME_MODEL / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"version": "2", "sha256": "ab" * 32}))
    second = repository.at({FRAME_MODEL: "2"})
    with pytest.raises(ModelRepositoryError, match="fitted on another"):
        read_ensemble(second)
    members = [{"model": FRAME_MODEL, "sha256": "ab" * 32, "weight": 2.0}]
    (folder / FILE).write_text(json.dumps({"bias": 0.0, "members": members}))
    assert dict(read_ensemble(second).weights) == {FRAME_MODEL: 2.0}
    assert dict(read_ensemble(repository).weights) == {FRAME_MODEL: 1.0, COMPANION: 0.5}
