"""Lines of the ledger for branches that could not score."""

from __future__ import annotations

from collections.abc import Iterable

from services.common.errors import BonafideError, DeadlineError, ModelNotDeployedError, UnavailableError
from services.common.evidence import VISUAL_BRANCHES, Branch, BranchReport, Outcome, ReasonCode

_FAILURES: tuple[tuple[type[BonafideError], Outcome, ReasonCode], ...] = (
    (DeadlineError, Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT),
    (ModelNotDeployedError, Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED),
    (UnavailableError, Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE),
)


def failure(branch: Branch, error: BonafideError, milliseconds: float = 0.0) -> BranchReport:
    """The report of a branch that an error ended."""
    for kind, outcome, reason in _FAILURES:
        if isinstance(error, kind):
            return BranchReport(branch, outcome, reason, milliseconds=milliseconds)
    return BranchReport(branch, Outcome.FAILED, ReasonCode.BRANCH_ERROR, milliseconds=milliseconds)


def not_applicable(branch: Branch, reason: ReasonCode) -> BranchReport:
    """The report of a branch for which the clip holds nothing."""
    return BranchReport(branch, Outcome.NOT_APPLICABLE, reason)


def complete(reports: Iterable[BranchReport]) -> tuple[BranchReport, ...]:
    """One report a visual branch, in the ledger's order; branches without one were not requested."""
    known = {report.branch: report for report in reports}
    return tuple(
        known.get(branch, BranchReport(branch, Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED))
        for branch in VISUAL_BRANCHES
    )
