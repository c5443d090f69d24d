"""The ensemble: sums of logits shared by a gate, of exactly the networks that its weights were fitted on."""

import json
from pathlib import Path

import pytest

from services.common.errors import ModelRepositoryError
from services.common.evidence import Branch
from services.common.media import Frame
from services.common.models import ModelRepository
from services.visual.detection import Picture
from services.visual.ensemble import FILE, Ensemble, WeightedSum, read_ensemble
from services.visual.scoring import FRAME_MODEL, CropScore
from tests.visual.conftest import add_model, link_models, make_pipeline, redness_graph

COMPANION = "companion"


def write_ensemble(root: Path, weights: dict[str, float], **others: object) -> None:
    cards = ModelRepository(root)
    content = {
        "familiar": {"bias": 0.0, "weights": weights},
        "members": {name: cards.card(name).sha256 for name in weights},
    }
    (root / FILE).write_text(json.dumps(content | others))


@pytest.fixture
def judges(repository: ModelRepository, tmp_path: Path) -> Path:
    """Two judges of colour over the same crops."""
    link_models(repository.root, tmp_path)
    add_model(tmp_path, "patch_gate", redness_graph("patch_logits"))
    add_model(tmp_path, FRAME_MODEL, redness_graph("embedding"))
    add_model(tmp_path, COMPANION, redness_graph("embedding"))
    return tmp_path


def test_logits_are_weighed_and_summed() -> None:
    ensemble = Ensemble(WeightedSum({FRAME_MODEL: 0.5, COMPANION: 2.0}, bias=-1.0))
    own = [CropScore(1, 0, 2.0), CropScore(2, 40, -4.0)]
    other = [CropScore(1, 0, 3.0), CropScore(2, 40, 0.5)]
    combined = ensemble.combine({FRAME_MODEL: own, COMPANION: other})
    assert [score.logit for score in combined] == [6.0, -2.0]
    assert [(score.track_id, score.time_us) for score in combined] == [(1, 0), (2, 40)]


def test_the_gate_shares_the_word_between_two_sums() -> None:
    familiar, unfamiliar = (
        WeightedSum({FRAME_MODEL: 1.0, COMPANION: 0.0}),
        WeightedSum({FRAME_MODEL: 0.0, COMPANION: 1.0}),
    )
    ensemble = Ensemble(familiar, unfamiliar, gate=COMPANION)
    own = [CropScore(1, place, 4.0) for place in range(3)]
    others = [CropScore(1, place, -2.0, familiarity=log_odds) for place, log_odds in enumerate((50.0, 0.0, -50.0))]
    combined = ensemble.combine({FRAME_MODEL: own, COMPANION: others})
    assert [score.logit for score in combined] == pytest.approx([4.0, 1.0, -2.0])


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


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"familiar": {"bias": 0, "weights": {}}, "members": {}}',
        '{"familiar": {"bias": NaN, "weights": {"frame_classifier": 1}}, "members": {"frame_classifier": "0"}}',
        '{"familiar": {"bias": 0, "weights": {"frame_classifier": 1}}, "members": []}',
        '{"familiar": {"bias": 0, "weights": {"frame_classifier": 1}}, "members": {}}',
        '{"familiar": {"bias": 0, "weights": {"frame_classifier": 1}}, "members": {}, "gate": "x", "unfamiliar": 0}',
    ],
)
def test_what_is_no_ensemble_is_refused(judges: Path, text: str) -> None:
    (judges / FILE).write_text(text)
    with pytest.raises(ModelRepositoryError, match=FILE):
        read_ensemble(ModelRepository(judges))


def test_a_gate_that_does_not_say_what_is_familiar_is_refused(judges: Path) -> None:
    both = {FRAME_MODEL: 1.0, COMPANION: 1.0}
    write_ensemble(judges, both, gate=COMPANION, unfamiliar={"bias": 0.0, "weights": both})
    with pytest.raises(ModelRepositoryError, match="no such output"):
        read_ensemble(ModelRepository(judges))


async def test_the_gate_is_asked_with_the_rest(judges: Path, portrait: Picture) -> None:
    add_model(judges, "gate", redness_graph("familiarity"), outputs={"logit": "", "familiarity": ""})  # red: familiar
    members = {FRAME_MODEL: 0.5, COMPANION: -0.5, "gate": 0.0}
    never = {"bias": 30.0, "weights": members}
    write_ensemble(judges, members, gate="gate", unfamiliar=never)
    evidence = await make_pipeline(judges).analyze([Frame(0, portrait)], [], frozenset({Branch.FRAME}), timeout=60)
    (report,) = (report for report in evidence.reports if report.branch is Branch.FRAME)
    assert report.score == pytest.approx(0.5, abs=1e-6)
    assert report.model == f"{FRAME_MODEL}/1+{COMPANION}/1+gate/1"


async def test_every_member_is_asked_and_named(judges: Path, portrait: Picture) -> None:
    pictures, wanted = [Frame(0, portrait)], frozenset({Branch.FRAME})
    alone = await make_pipeline(judges).analyze(pictures, [], wanted, timeout=60)
    write_ensemble(judges, {FRAME_MODEL: 0.5, COMPANION: -0.5})
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
    alone = {"bias": 0.0, "weights": {FRAME_MODEL: 2.0}}
    (folder / FILE).write_text(json.dumps({"familiar": alone, "members": {FRAME_MODEL: "ab" * 32}}))
    assert dict(read_ensemble(second).familiar.weights) == {FRAME_MODEL: 2.0}
    assert dict(read_ensemble(repository).familiar.weights) == {FRAME_MODEL: 1.0, COMPANION: 0.5}
