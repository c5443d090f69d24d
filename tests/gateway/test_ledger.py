"""The ledger has exactly one line a branch, whatever happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import (
    BonafideError,
    DeadlineError,
    InvalidInputError,
    ModelNotDeployedError,
    ResourceExhaustedError,
    UnavailableError,
)
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode
from services.gateway.breaker import CircuitOpenError
from services.gateway.ledger import Ledger, failure, sync_line

branches = st.sampled_from(Branch)
reports = st.builds(BranchReport, branches, st.sampled_from(Outcome), st.sampled_from(ReasonCode))


@given(st.frozensets(branches, min_size=1), st.lists(reports))
def test_one_line_for_each_branch_in_order(requested: frozenset[Branch], found: list[BranchReport]) -> None:
    ledger = Ledger(requested)
    added = ledger.add(found)
    lines = ledger.complete()
    assert [line.branch for line in lines] == list(Branch)
    assert {line.branch for line in lines if line in added} <= requested
    for line in lines:
        if line.branch not in requested:
            assert line.outcome is Outcome.NOT_REQUESTED


def test_the_first_line_of_a_branch_stands() -> None:
    ledger = Ledger(frozenset(Branch))
    first = BranchReport(Branch.AUDIO, Outcome.SCORED, score=0.5)
    assert ledger.add([first]) == [first]
    assert ledger.add([BranchReport(Branch.AUDIO, Outcome.FAILED)]) == []
    assert ledger.lines[Branch.AUDIO] is first


def test_a_branch_that_never_reported_has_failed() -> None:
    lines = {line.branch: line for line in Ledger(frozenset({Branch.FRAME})).complete()}
    assert (lines[Branch.FRAME].outcome, lines[Branch.FRAME].reason) == (Outcome.FAILED, ReasonCode.BRANCH_ERROR)


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (DeadlineError("late"), Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT),
        (UnavailableError("gone"), Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE),
        (ResourceExhaustedError("full"), Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE),
        (CircuitOpenError("open"), Outcome.FAILED, ReasonCode.CIRCUIT_OPEN),
        (ModelNotDeployedError("none"), Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED),
        (InvalidInputError("odd"), Outcome.FAILED, ReasonCode.BRANCH_ERROR),
    ],
)
def test_errors_read_as_outcomes(error: BonafideError, outcome: Outcome, reason: ReasonCode) -> None:
    line = failure(Branch.FRAME, error, 12.0)
    assert (line.outcome, line.reason, line.score, line.milliseconds) == (outcome, reason, None, 12.0)


@pytest.mark.parametrize("outage", [UnavailableError("gone"), DeadlineError("late"), CircuitOpenError("open")])
def test_an_outage_alone_makes_no_verdict(outage: BonafideError) -> None:
    ledger = Ledger(frozenset(Branch))
    ledger.add([failure(Branch.FRAME, outage, 1.0)])
    ledger.add([BranchReport(Branch.AUDIO, Outcome.NOT_APPLICABLE, ReasonCode.NO_SPEECH)])
    with pytest.raises(UnavailableError) as refused:
        ledger.raise_if_unreachable()
    assert refused.value.reason == "BRANCHES_UNAVAILABLE"


@pytest.mark.parametrize(
    "line",
    [
        BranchReport(Branch.AUDIO, Outcome.SCORED, score=0.2),
        BranchReport(Branch.AUDIO, Outcome.FAILED, ReasonCode.BRANCH_ERROR),
        BranchReport(Branch.AUDIO, Outcome.NOT_APPLICABLE, ReasonCode.NO_SPEECH),
    ],
)
def test_a_score_or_no_outage_lets_fusion_decide(line: BranchReport) -> None:
    ledger = Ledger(frozenset(Branch))
    ledger.add([line])
    if line.outcome is Outcome.SCORED:
        ledger.add([failure(Branch.FRAME, UnavailableError("gone"), 1.0)])
    ledger.raise_if_unreachable()


def test_synchrony_names_the_side_that_was_missing() -> None:
    silent = BranchReport(Branch.SYNC, Outcome.NOT_APPLICABLE, ReasonCode.NO_FACE)
    assert sync_line(silent, lacking=ReasonCode.NO_AUDIO, error=None).reason is ReasonCode.NO_AUDIO
    failed = sync_line(silent, lacking=None, error=UnavailableError("gone"))
    assert (failed.outcome, failed.reason) == (Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE)
    assert sync_line(silent, lacking=None, error=None) is silent
    absent = BranchReport(Branch.SYNC, Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED)
    assert sync_line(absent, lacking=ReasonCode.NO_AUDIO, error=None) is absent
