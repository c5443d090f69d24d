from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInputError
from services.common.evidence import Branch, BranchReport, Outcome
from services.fusion.features import BRANCH_FEATURES, FEATURE_ORDER, clip_features, is_probability, scored_branches
from tests.fusion.conftest import scored

SILENT = [outcome for outcome in Outcome if outcome is not Outcome.SCORED]


def test_the_twelve_features_have_one_fixed_order() -> None:
    assert FEATURE_ORDER == (
        "tiny_prob_mean",
        "tiny_prob_max",
        "tiny_prob_p90",
        "tiny_num_files",
        "tiny_num_patches",
        "visual_prob_mean",
        "visual_prob_max",
        "visual_prob_p90",
        "visual_num_faces",
        "audio_prob_fake",
        "temporal_prob_fake",
        "sync_prob",
    )


def test_order_does_not_depend_on_the_ledger() -> None:
    reports = [scored(branch, 0.5) for branch in reversed(list(Branch))]
    assert tuple(clip_features(reports)) == FEATURE_ORDER


@given(st.lists(st.sampled_from(list(Branch)), unique=True), st.sampled_from(SILENT), st.floats(0, 1))
def test_a_branch_that_did_not_score_contributes_nothing(
    answered: list[Branch], outcome: Outcome, value: float
) -> None:
    reports = [
        scored(branch, value)
        if branch in answered
        else BranchReport(branch, outcome, features={"audio_prob_fake": 1.0})
        for branch in Branch
    ]
    expected = [name for branch, names in BRANCH_FEATURES.items() if branch in answered for name in names]
    assert list(clip_features(reports)) == expected
    assert scored_branches(reports) == frozenset(answered)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.01, 1.01])
def test_a_probability_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match="audio_prob_fake"):
        clip_features([scored(Branch.AUDIO, value)])


def test_a_scored_branch_must_bring_its_features() -> None:
    with pytest.raises(InvalidInputError, match="sync_prob"):
        clip_features([BranchReport(Branch.SYNC, Outcome.SCORED, score=0.5)])


def test_two_reports_of_a_branch_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="two reports"):
        clip_features([scored(Branch.AUDIO, 0.1), scored(Branch.AUDIO, 0.9)])


def test_counts_are_not_probabilities() -> None:
    assert [name for name in FEATURE_ORDER if not is_probability(name)] == [
        "tiny_num_files",
        "tiny_num_patches",
        "visual_num_faces",
    ]
