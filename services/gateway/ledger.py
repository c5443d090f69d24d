"""The ledger: exactly one report for each branch that exists, whatever happened to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from services.common.errors import BonafideError, DeadlineError, ModelNotDeployedError, UnavailableError
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode
from services.gateway.breaker import CircuitOpenError

_FAILURES: tuple[tuple[type[BonafideError], Outcome, ReasonCode], ...] = (
    (DeadlineError, Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT),
    (ModelNotDeployedError, Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED),
    (CircuitOpenError, Outcome.FAILED, ReasonCode.CIRCUIT_OPEN),
    (UnavailableError, Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE),
)
_OUTAGES = frozenset({ReasonCode.BRANCH_UNAVAILABLE, ReasonCode.CIRCUIT_OPEN, ReasonCode.BRANCH_TIMED_OUT})


def failure(branch: Branch, error: BonafideError, milliseconds: float) -> BranchReport:
    """The line of a branch whose service did not answer."""
    for kind, outcome, reason in _FAILURES:
        if isinstance(error, kind):
            return BranchReport(branch, outcome, reason, milliseconds=milliseconds)
    return BranchReport(branch, Outcome.FAILED, ReasonCode.BRANCH_ERROR, milliseconds=milliseconds)


class Ledger:
    """Collects lines as they land. The first line of a branch stands."""

    def __init__(self, requested: frozenset[Branch]) -> None:
        self._lines: dict[Branch, BranchReport] = {
            branch: BranchReport(branch, Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED)
            for branch in Branch
            if branch not in requested
        }

    @property
    def lines(self) -> Mapping[Branch, BranchReport]:
        """Lines so far."""
        return self._lines

    def add(self, reports: Iterable[BranchReport]) -> list[BranchReport]:
        """Write lines down; answers those that are new to the ledger."""
        new = []
        for report in reports:
            if report.branch not in self._lines:
                self._lines[report.branch] = report
                new.append(report)
        return new

    def missing(self, branches: Iterable[Branch]) -> list[BranchReport]:
        """Close the lines of branches that should have reported and did not."""
        return self.add(BranchReport(branch, Outcome.FAILED, ReasonCode.BRANCH_ERROR) for branch in branches)

    def complete(self) -> tuple[BranchReport, ...]:
        """One line for each branch that exists, in the contract's order."""
        self.missing(Branch)
        return tuple(self._lines[branch] for branch in Branch)

    def raise_if_unreachable(self) -> None:
        """Refuse to decide when no branch scored and at least one could not be reached or was too slow.

        Raises:
            UnavailableError: a verdict would rest on nothing but an outage (reason BRANCHES_UNAVAILABLE).
        """
        lines = self._lines.values()
        if any(line.outcome is Outcome.SCORED for line in lines):
            return
        if any(line.reason in _OUTAGES for line in lines):
            raise UnavailableError(
                "no branch that applies to this clip could be reached", reason="BRANCHES_UNAVAILABLE"
            )


def sync_line(report: BranchReport, *, lacking: ReasonCode | None, error: BonafideError | None) -> BranchReport:
    """Fusion's line for SYNC, with the ground that only the gateway knows when it did not apply.

    Args:
        report: the line that fusion wrote.
        lacking: the side that the file does not have, if any.
        error: why a side that the file has could not be judged, if so.
    """
    if report.outcome is not Outcome.NOT_APPLICABLE:
        return report
    if lacking is not None:
        return replace(report, reason=lacking)
    if error is not None:
        return failure(Branch.SYNC, error, report.milliseconds)
    return report
