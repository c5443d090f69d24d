"""The story of one verdict: synchrony, features, head, temperature, policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.common.evidence import (
    Branch,
    BranchReport,
    FusionResult,
    ModelInfo,
    MotionSequence,
    Outcome,
    ReasonCode,
    Verdict,
    VoiceSequence,
)
from services.common.telemetry import STAGE_DURATION, Telemetry
from services.common.tracing import branch_span, note_report
from services.fusion.features import clip_features, scored_branches
from services.fusion.heads import HEAD_ENGINE, sigmoid
from services.fusion.policy import Policy
from services.fusion.store import HeadStore
from services.fusion.synchrony import Synchrony, SynchronyResult

_SILENT_OUTCOMES = frozenset({Outcome.NOT_APPLICABLE, Outcome.TIMED_OUT, Outcome.FAILED})


@dataclass(frozen=True, slots=True)
class FusionInput:
    """What the gateway knows of one clip.

    ``reports`` holds at most one report a branch and none of SYNC; empty ``policy`` means the default,
    empty ``branches`` means all.
    """

    reports: tuple[BranchReport, ...]
    motions: tuple[MotionSequence, ...] = ()
    voice: VoiceSequence | None = None
    policy: str = ""
    branches: frozenset[Branch] = frozenset()


class FusionPipeline:
    """Turns the ledger of one clip into a verdict with its grounds.

    Args:
        store: heads and policies.
        synchrony: scores SYNC.
        telemetry: where stages are timed; nobody scrapes it when None.
    """

    def __init__(self, store: HeadStore, synchrony: Synchrony, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry or Telemetry("fusion")
        self._store = store
        self._synchrony = synchrony

    async def fuse(self, clip: FusionInput, *, timeout: float) -> FusionResult:
        """Score synchrony, apply the head fitted for exactly the branches that answered, and the policy.

        Args:
            clip: the ledger so far, and lip motion and voice for synchrony.
            timeout: seconds that this may take.

        Returns:
            The verdict. ``probability`` is None only when no branch scored.

        Raises:
            InvalidInputError: unknown policy, or a ledger that contradicts itself.
            UnavailableError: the heads are not loaded.
        """
        policy = self._store.policies.get(clip.policy)
        wanted = clip.branches or frozenset(Branch)
        reports = [report for report in clip.reports if report.branch in wanted]
        with branch_span(Branch.SYNC) as opened:
            found = await self._synchrony.score(
                clip.motions, clip.voice, clip.reports, wanted=Branch.SYNC in wanted, timeout=timeout
            )
            note_report(opened, found.report)
        if found.report.milliseconds:
            self._telemetry.observe(STAGE_DURATION, found.report.milliseconds / 1000, stage="sync")
        with self._telemetry.stage("head"):
            return self._decide(policy, [*reports, found.report], found)

    def _decide(self, policy: Policy, ledger: Sequence[BranchReport], found: SynchronyResult) -> FusionResult:
        """Head, temperature and policy."""
        features = clip_features(ledger)
        branches = scored_branches(ledger)
        head = self._store.heads[branches] if branches else None
        contributions = head.contributions(features) if head else ()
        probability = sigmoid(sum(part.log_odds for part in contributions)) if head else None
        verdict, grounds = policy.decide(branches, probability)
        models = list(found.models)
        if head is not None:
            models.append(ModelInfo(f"fusion_head.{head.key}", "1", head.sha256, HEAD_ENGINE))
        return FusionResult(
            verdict=verdict,
            probability=probability,
            reasons=_reasons(verdict, grounds, found, ledger),
            contributions=contributions,
            sync=found.report,
            policy=policy.info(branches),
            models=tuple(models),
        )


def _reasons(
    verdict: Verdict, grounds: Iterable[ReasonCode], found: SynchronyResult, ledger: Sequence[BranchReport]
) -> tuple[ReasonCode, ...]:
    """Grounds of the policy, then what synchrony saw, then, when in doubt, what was missing."""
    reasons = list(grounds)
    if verdict is not Verdict.AUTHENTIC:
        reasons += found.findings
    if verdict is Verdict.INCONCLUSIVE:
        silent = (report for report in ledger if report.outcome in _SILENT_OUTCOMES)
        reasons += [report.reason for report in silent if report.reason is not None]
    return tuple(dict.fromkeys(reasons))
