from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from services.common.errors import InvalidInputError, ModelRepositoryError
from services.common.evidence import Branch, ReasonCode, Verdict
from services.fusion.heads import branch_sets
from services.fusion.policy import Policy, Thresholds, binomial_upper_bound, load_policies
from tests.fusion.conftest import policy_json

NEEDS_FACE = (frozenset({Branch.FRAME}), frozenset({Branch.TEMPORAL}))
ALL = frozenset(Branch)


@st.composite
def policies(draw: DrawFn) -> Policy:
    authentic = draw(st.floats(0, 0.98))
    deepfake = draw(st.floats(authentic, 1.0, exclude_min=True))
    thresholds = {"*": Thresholds(deepfake, authentic, 0.1)}
    return Policy("any", thresholds, NEEDS_FACE, (*NEEDS_FACE, frozenset({Branch.SYNC})))


@given(policies(), st.sampled_from(branch_sets()), st.floats(0, 1))
def test_thresholds_bound_the_verdicts(policy: Policy, branches: frozenset[Branch], probability: float) -> None:
    verdict, reasons = policy.decide(branches, probability)
    info = policy.info(branches)
    if verdict is Verdict.DEEPFAKE:
        assert probability >= info.deepfake_threshold
        assert reasons == (ReasonCode.ABOVE_DEEPFAKE_THRESHOLD,)
    elif verdict is Verdict.AUTHENTIC:
        assert probability <= info.authentic_threshold
        assert branches & {Branch.FRAME, Branch.TEMPORAL}
        assert reasons == (ReasonCode.BELOW_AUTHENTIC_THRESHOLD,)
    else:
        assert reasons[0] in {ReasonCode.WITHIN_ABSTAIN_BAND, ReasonCode.TOO_LITTLE_EVIDENCE}


@given(policies(), st.floats(0, 1))
def test_no_evidence_is_never_a_verdict(policy: Policy, probability: float) -> None:
    assert policy.decide(frozenset(), probability) == (Verdict.INCONCLUSIVE, (ReasonCode.TOO_LITTLE_EVIDENCE,))
    assert policy.decide(ALL, None) == (Verdict.INCONCLUSIVE, (ReasonCode.TOO_LITTLE_EVIDENCE,))


@pytest.mark.parametrize("branches", [{Branch.PATCH}, {Branch.AUDIO}, {Branch.SYNC}, {Branch.AUDIO, Branch.SYNC}])
def test_weak_branches_alone_never_make_a_clip_authentic(branches: set[Branch]) -> None:
    policy = Policy("p", {"*": Thresholds(0.9, 0.1, 0.1)}, NEEDS_FACE, NEEDS_FACE)
    assert policy.decide(frozenset(branches), 0.0)[0] is Verdict.INCONCLUSIVE


def test_a_head_has_its_own_thresholds_where_given() -> None:
    thresholds = {"*": Thresholds(0.9, 0.1, 0.1), "audio": Thresholds(0.99, 0.01, 0.02)}
    policy = Policy("p", thresholds, NEEDS_FACE, NEEDS_FACE)
    assert policy.info(frozenset({Branch.AUDIO})).deepfake_threshold == 0.99
    assert policy.info(ALL).deepfake_threshold == 0.9


@given(st.integers(0, 60), st.integers(1, 200))
def test_the_binomial_bound_lies_above_the_rate(events: int, trials: int) -> None:
    bound = binomial_upper_bound(min(events, trials), trials)
    assert min(events, trials) / trials <= bound <= 1.0


@pytest.mark.parametrize(
    ("events", "trials", "bound"),
    [(0, 43, 1 - 0.05 ** (1 / 43)), (0, 300, 1 - 0.05 ** (1 / 300)), (1, 10, 0.39416), (43, 43, 1.0), (0, 0, 1.0)],
)
def test_the_binomial_bound_is_that_of_clopper_and_pearson(events: int, trials: int, bound: float) -> None:
    assert binomial_upper_bound(events, trials) == pytest.approx(bound, abs=1e-5)


def test_policies_are_picked_by_name(heads_directory: Path) -> None:
    policies = load_policies(heads_directory, None, "balanced")
    assert policies.names() == ["balanced", "cautious"]
    assert policies.get("").name == "balanced"
    assert policies.get("cautious").info(ALL).deepfake_threshold == 0.95
    with pytest.raises(InvalidInputError, match="balanced, cautious"):
        policies.get("reckless")


def test_an_operator_can_bring_a_policy(heads_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps(policy_json("mine", 0.6, 0.4)))
    policies = load_policies(heads_directory, tmp_path, "mine")
    assert policies.get("").info(ALL).deepfake_threshold == 0.6


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": {"*": {"deepfake": 0.2, "authentic": 0.8, "false_positive_bound": 0.1}}},
        {"thresholds": {"*": {"deepfake": 1.2, "authentic": 0.8, "false_positive_bound": 0.1}}},
        {"thresholds": {"*": {"deepfake": 0.9}}},
        {"authentic_needs": [[]]},
        {"deepfake_needs": [["hearsay"]]},
    ],
)
def test_a_senseless_policy_is_refused(heads_directory: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "own.json").write_text(json.dumps(policy_json("mine", 0.6, 0.4) | change))
    with pytest.raises(ModelRepositoryError, match=r"own\.json"):
        load_policies(heads_directory, tmp_path, "balanced")


def test_a_default_that_does_not_exist_is_refused(heads_directory: Path) -> None:
    with pytest.raises(ModelRepositoryError, match="reckless"):
        load_policies(heads_directory, None, "reckless")
