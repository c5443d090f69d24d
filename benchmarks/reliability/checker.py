"""Accounts for every request: each ends in exactly one of five ways, and only three of them are honest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from services.common.evidence import Branch, Outcome, Verdict
from services.fusion.features import BRANCH_FEATURES
from services.fusion.heads import INTERCEPT, sigmoid

TOLERANCE = 1e-3
"""Largest difference of a score from that of the quiet system."""
HONEST_CODES = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED"})
"""Statuses that a good clip may be answered with; any other blames the caller for nothing, or is a fault of ours."""
FAILURES = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.NOT_DEPLOYED})


class Ending(StrEnum):
    """How a request ended."""

    RIGHT = "right"
    PARTIAL = "partial"
    TYPED_ERROR = "typed_error"
    LOST = "lost"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger."""

    outcome: str
    reason: str
    score: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request.

    ``code`` is the status by name; ``reason`` that of its ErrorInfo, empty without one; ``text`` its sentence.
    ``verdict`` and what follows it are set when an analysis came. Times are seconds, ``began`` from the start of the
    load.
    """

    number: int
    sample: str
    priority: str
    began: float
    seconds: float
    code: str
    reason: str = ""
    text: str = ""
    request_id: str = ""
    sha256: str = ""
    expected_id: str = ""
    expected_sha256: str = ""
    verdict: str = ""
    probability: float | None = None
    lines: Mapping[str, Line] = field(default_factory=dict)
    log_odds: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The reverse of ``to_dict``."""
        return cls(**{**values, "lines": {name: Line(**line) for name, line in values["lines"].items()}})


@dataclass(frozen=True, slots=True)
class Finding:
    """How a request ended, and what was wrong with it when it was."""

    ending: Ending
    remark: str = ""


class Checker:
    """Judges answers by those of the quiet system.

    Args:
        quiet: the answer to each sample when nothing was wrong, by the sample's name.
        reasons: the documented reasons of errors.
    """

    def __init__(self, quiet: Mapping[str, Answer], reasons: frozenset[str]) -> None:
        self._quiet = quiet
        self._reasons = reasons

    def judge(self, answer: Answer) -> Finding:
        """Say how one request ended."""
        if answer.code == "OK":
            return self._judge_analysis(answer)
        if answer.code == "DEADLINE_EXCEEDED" and not answer.reason:
            return Finding(Ending.LOST, "no answer by the deadline")
        if answer.code == "UNAVAILABLE" and not answer.reason:
            return Finding(Ending.TYPED_ERROR, "UNAVAILABLE of the connection")  # nobody was there to say more
        if answer.code in HONEST_CODES and answer.reason in self._reasons:
            return Finding(Ending.TYPED_ERROR, answer.reason)
        return Finding(Ending.WRONG, f"{answer.code} {answer.reason or answer.text or 'without a reason'}")

    def _judge_analysis(self, answer: Answer) -> Finding:
        if not answer.verdict:
            return Finding(Ending.LOST, "the stream ended without an analysis")
        if (answer.request_id, answer.sha256) != (answer.expected_id, answer.expected_sha256):
            return Finding(Ending.WRONG, "the answer to another request")
        quiet = self._quiet[answer.sample]
        if set(answer.lines) != set(quiet.lines):
            return Finding(Ending.WRONG, "the ledger is not whole")
        missing = [name for name, line in answer.lines.items() if not _same(line, quiet.lines[name])]
        if not missing:
            alike = answer.verdict == quiet.verdict and _near(answer.probability, quiet.probability)
            return Finding(Ending.RIGHT) if alike else Finding(Ending.WRONG, "another verdict from the same ledger")
        return _judge_partial(answer, quiet, missing)


def _judge_partial(answer: Answer, quiet: Answer, missing: list[str]) -> Finding:
    named = [name for name in missing if answer.lines[name].outcome in FAILURES and answer.lines[name].reason]
    for name in missing:
        line = answer.lines[name]
        # SYNC and TEMPORAL live on what other branches found, so they may fall silent with them.
        follows = line.score is None and bool(named)
        if name not in named and not follows:
            return Finding(Ending.WRONG, f"{name}: {line.outcome} {line.reason} {line.score}")
        if quiet.lines[name].outcome != Outcome.SCORED and line.score is not None:
            return Finding(Ending.WRONG, f"{name} was made up")
    scored = {name for name, line in answer.lines.items() if line.outcome == Outcome.SCORED}
    if not scored and answer.verdict != Verdict.INCONCLUSIVE:
        return Finding(Ending.WRONG, "a verdict without evidence")
    allowed = {feature for branch in scored for feature in BRANCH_FEATURES[Branch(branch)]} | {INTERCEPT}
    if not set(answer.log_odds) <= allowed:
        return Finding(Ending.WRONG, "the verdict weighs a branch that is missing")
    if answer.probability is not None and not _near(answer.probability, sigmoid(sum(answer.log_odds.values()))):
        return Finding(Ending.WRONG, "the probability is not that of its contributions")
    return Finding(Ending.PARTIAL, " ".join(sorted(missing)))


def _same(line: Line, quiet: Line) -> bool:
    return (line.outcome, line.reason) == (quiet.outcome, quiet.reason) and _near(line.score, quiet.score)


def _near(value: float | None, other: float | None) -> bool:
    if value is None or other is None:
        return value is other
    return math.isclose(value, other, rel_tol=0.0, abs_tol=TOLERANCE)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many requests ended in each way, and why those that were not right were not."""

    endings: Mapping[Ending, int]
    remarks: Mapping[tuple[Ending, str], int]

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.endings.values())

    def to_dict(self) -> dict[str, int]:
        """Counts by name, ``requests`` first."""
        return {"requests": self.requests, **{ending.value: self.endings.get(ending, 0) for ending in Ending}}


def tally(findings: Iterable[Finding]) -> Tally:
    """Count findings."""
    listed = list(findings)
    remarks = Counter((finding.ending, finding.remark) for finding in listed if finding.remark)
    return Tally(Counter(finding.ending for finding in listed), remarks)
