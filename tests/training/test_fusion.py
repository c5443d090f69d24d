from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from services.common.evidence import Branch, BranchReport, Outcome
from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.fusion.features import BRANCH_FEATURES, is_probability
from services.fusion.heads import branch_sets, head_key
from services.fusion.store import HeadStore
from services.fusion.synchrony import SYNC_MODEL

pytest.importorskip("sklearn")

from training.data import data_root, read_manifest
from training.fusion.__main__ import STRENGTH, fit_all
from training.fusion.calibration import TARGETS, Scores, choose_thresholds, upper_limit, weighted_quantile
from training.fusion.corpus import EARLY_SOUND_US, Kind, early_by
from training.fusion.export import policy_document, write_set
from training.fusion.fitting import fit_head, fit_temperature, held_out_log_odds
from training.fusion.memo import MemoEngine
from training.fusion.rows import (
    FAMILIES,
    SHARES,
    LabelledRow,
    labelled_row,
    prior_odds,
    row_weights,
    rows_for,
    table_for,
)

pytestmark = pytest.mark.training
MODELS = Path(__file__).parents[2] / "model_repository"
FACTS: dict[str, Any] = {"seed": 0}


def report(branch: Branch, probability: float, count: float) -> BranchReport:
    names = BRANCH_FEATURES[branch]
    features = {name: probability if is_probability(name) else count for name in names}
    return BranchReport(branch, Outcome.SCORED, score=probability, features=features)


def made_rows(count: int = 40, seed: int = 0, *, counts_leak: bool = False) -> list[LabelledRow]:
    """Clips in which frame and sync tell the truth, audio knows nothing and patch is upside down."""
    random = np.random.default_rng(seed)

    def squash(value: float) -> float:
        return float(1 / (1 + np.exp(-value)))

    rows = []
    for number in range(count):
        for kind in (Kind.REAL, Kind.GENERATED, Kind.DUBBED):
            face, sound = kind is Kind.GENERATED, kind is Kind.DUBBED
            reports = [
                report(Branch.PATCH, squash(random.normal(-1 if face else 0, 1)), 16),
                report(Branch.FRAME, squash(random.normal(2 if face else -1, 1)), 30 if face and counts_leak else 10),
                report(Branch.AUDIO, squash(random.normal(0, 1)), 0),
                report(Branch.SYNC, squash(random.normal(3 if sound else -2, 1)), 0),
            ]
            rows.append(labelled_row(f"{number}{kind}", f"person{number}", "made", kind, reports))
    return rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("heads")
    heads, thresholds = fit_all(made_rows(), 0, FACTS)
    write_set(directory, heads, {t.name: policy_document(t, thresholds[t.name], FACTS) for t in TARGETS})
    return directory


def test_all_sets_of_branches_get_a_head_that_loads(trained: Path) -> None:
    store = HeadStore(trained)
    store.refresh()
    assert set(store.heads) == set(branch_sets())
    assert store.policies.names() == ["balanced", "cautious"]


def test_served_log_odds_are_those_of_training(trained: Path) -> None:
    branches = frozenset({Branch.PATCH, Branch.FRAME, Branch.SYNC})
    rows = rows_for(made_rows(), branches)
    table = table_for(rows, branches)
    fitted = fit_head(table, STRENGTH)
    store = HeadStore(trained)
    store.refresh()
    head = store.heads[branches]
    served = [sum(part.log_odds for part in head.contributions(row.features)) * head.temperature for row in rows]
    np.testing.assert_allclose(served, fitted.log_odds(table.values), atol=1e-6)


def test_no_feature_speaks_against_itself_and_counts_do_not_speak() -> None:
    rows = rows_for(made_rows(counts_leak=True), frozenset({Branch.PATCH, Branch.FRAME}))
    table = table_for(rows, frozenset({Branch.PATCH, Branch.FRAME}))
    weights = dict(zip(table.names, fit_head(table, 10.0).coefficients, strict=True))
    assert all(weight >= 0 for weight in weights.values())
    assert all(weight == 0 for name, weight in weights.items() if not is_probability(name))
    assert weights["visual_prob_mean"] > 0


def test_held_out_rows_are_scored_by_heads_that_never_saw_their_group() -> None:
    rows = rows_for(made_rows(), frozenset({Branch.FRAME}))
    table = table_for(rows, frozenset({Branch.FRAME}))
    folds = np.array([int(row.group.removeprefix("person")) % 5 for row in rows])
    log_odds = held_out_log_odds(table, folds, 0.05)
    own = fit_head(table.rows(folds != 2), 0.05).log_odds(table.values[folds == 2])
    np.testing.assert_allclose(log_odds[folds == 2], own)


def test_overconfident_scores_are_cooled() -> None:
    rows = rows_for(made_rows(200), frozenset({Branch.FRAME}))
    table = table_for(rows, frozenset({Branch.FRAME}))
    log_odds = fit_head(table, 1.0).log_odds(table.values)
    assert fit_temperature(3 * log_odds, table) == pytest.approx(3 * fit_temperature(log_odds, table), rel=0.05)


def test_a_branch_without_clips_borrows_and_says_so(trained: Path) -> None:
    content = json.loads((trained / "frame_temporal.json").read_text())
    place = content["features"].index("temporal_prob_fake")
    assert content["coefficients"][place] == 0
    assert "head of frame" in content["training"]["note"]
    alone = json.loads((trained / "temporal.json").read_text())
    assert set(alone["coefficients"]) == {0.0}
    store = HeadStore(trained)
    store.refresh()
    info = store.policies.get("balanced").info(frozenset({Branch.TEMPORAL}))
    assert (info.authentic_threshold, info.deepfake_threshold) == (0.0, 1.0)


def test_the_same_seed_gives_the_same_heads(trained: Path) -> None:
    heads, _ = fit_all(made_rows(), 0, FACTS)
    for branches, content in heads.items():
        assert json.loads((trained / f"{head_key(branches)}.json").read_text()) == json.loads(json.dumps(content))


def test_kinds_weigh_their_shares_whatever_their_number() -> None:
    rows = made_rows(10) + [row for row in made_rows(30, seed=1) if row.kind is Kind.REAL]
    weights = row_weights(rows)
    for kind in (Kind.REAL, Kind.GENERATED, Kind.DUBBED):
        total = sum(weight for row, weight in zip(rows, weights, strict=True) if row.kind is kind)
        assert total == pytest.approx(SHARES[kind])


def test_every_family_that_a_head_can_see_is_as_likely_as_none() -> None:
    assert prior_odds(frozenset({Branch.FRAME})) == 1
    assert prior_odds(frozenset({Branch.AUDIO})) == 1
    assert prior_odds(frozenset({Branch.SYNC})) == 3
    assert prior_odds(frozenset(Branch)) == len(FAMILIES) == 4
    assert sum(share for kind, share in SHARES.items() if kind is not Kind.REAL) == pytest.approx(1)
    assert set(SHARES) == set(Kind)


def test_sound_that_is_known_to_run_ahead_is_put_back() -> None:
    assert early_by("dd_rec_RD_Radio51_real.mp4") == 200_000
    assert early_by("dd_rec_RD_Radio51_wav2lip.mp4") == 0
    manifest = data_root() / "clips" / "clips.tsv"
    if not manifest.is_file():
        pytest.skip("the clips are not there")
    moved = {name for name in (row.file for row in read_manifest(manifest)) if early_by(name)}
    assert len(moved) == len(EARLY_SOUND_US)


def test_a_head_learns_nothing_from_what_its_branches_cannot_see() -> None:
    kinds = {row.kind for row in rows_for(made_rows(), frozenset({Branch.FRAME}))}
    assert kinds == {Kind.REAL, Kind.GENERATED}


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_an_upper_limit_is_passed_no_more_often_than_it_says(rate: float) -> None:
    random = np.random.default_rng(1)
    passed = [random.normal() > upper_limit(np.sort(random.normal(size=43)), rate) for _ in range(4000)]
    assert np.mean(passed) <= rate + 0.01


def scores(random: np.random.Generator, separation: float) -> Scores:
    labels: npt.NDArray[np.int64] = np.repeat([0, 1], 60)
    log_odds = random.normal(0, 1, 120) + separation * labels
    groups = np.array([f"g{number % 60}" for number in range(120)])
    return Scores(log_odds, labels, groups, np.ones(120))


@pytest.mark.parametrize("separation", [0.0, 2.0, 8.0])
def test_thresholds_are_in_order_and_the_stricter_policy_is_stricter(separation: float) -> None:
    found = [choose_thresholds(scores(np.random.default_rng(2), separation), target) for target in TARGETS]
    for thresholds in found:
        assert 0 <= thresholds.authentic < thresholds.deepfake <= 1
        assert thresholds.authentic <= 0.5 <= thresholds.deepfake
        assert 0 < thresholds.false_positive_bound < 1
    assert found[1].deepfake >= found[0].deepfake
    assert found[1].authentic <= found[0].authentic
    assert found[1].false_positive_bound <= found[0].false_positive_bound


def test_a_weighted_quantile_counts_weight_not_rows() -> None:
    values = np.array([1.0, 2.0, 3.0])
    assert weighted_quantile(values, np.array([1.0, 1.0, 8.0]), 0.3) == 3.0


def test_the_memo_answers_as_the_engine_does(tmp_path: Path) -> None:
    repository = ModelRepository(MODELS)
    random = np.random.default_rng(3)
    inputs = {
        "motion": random.normal(size=(3, 60, 80)).astype(np.float32),
        "voice": random.normal(size=(3, 60, 160)).astype(np.float32),
    }
    expected = EmbeddedEngine(repository).run(SYNC_MODEL, inputs)
    for _ in range(2):
        engine = MemoEngine(repository, tmp_path / "memo.sqlite")
        half = engine.run(SYNC_MODEL, {name: values[1:] for name, values in inputs.items()})
        whole = engine.run(SYNC_MODEL, inputs)
        for name, values in expected.items():
            np.testing.assert_allclose(whole[name], values, atol=1e-5)
            np.testing.assert_allclose(half[name], values[1:], atol=1e-5)
