"""The story of one verdict: synchrony, features, head, temperature, policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.common.errors import BonafideError
from services.common.evidence import (
    Branch,
    BranchReport,
    Contribution,
    FusionResult,
    ModelInfo,
    MotionSequence,
    Outcome,
    PolicyInfo,
    ReasonCode,
    Verdict,
    VoiceSequence,
)
from services.common.rollout_plan import Mode
from services.common.rollouts import Rollouts
from services.common.telemetry import STAGE_DURATION, Telemetry
from services.common.tracing import branch_span, note_report
from services.fusion.features import clip_features, scored_branches
from services.fusion.heads import HEAD_ENGINE, sigmoid
from services.fusion.store import HeadSet, HeadStore
from services.fusion.synchrony import Synchrony, SynchronyResult

_SILENT_OUTCOMES = frozenset({Outcome.NOT_APPLICABLE, Outcome.TIMED_OUT, Outcome.FAILED})


@dataclass(frozen=True, slots=True)
class FusionInput:
    """What the gateway knows of one clip.

    ``reports`` holds at most one report a branch and none of SYNC; empty ``policy`` means the default,
    empty ``branches`` means all. ``models`` gave the reports, and ``content`` is the hash of the clip's file; both
    are empty where they are not known.
    """

    reports: tuple[BranchReport, ...]
    motions: tuple[MotionSequence, ...] = ()
    voice: VoiceSequence | None = None
    policy: str = ""
    branches: frozenset[Branch] = frozenset()
    models: tuple[ModelInfo, ...] = ()
    content: str = ""


class FusionPipeline:
    """Turns the ledger of one clip into a verdict with its grounds.

    Args:
        store: heads and policies.
        synchrony: scores SYNC.
        telemetry: where stages are timed; nobody scrapes it when None.
        rollouts: the heads on trial; none when None.
    """

    def __init__(
        self,
        store: HeadStore,
        synchrony: Synchrony,
        telemetry: Telemetry | None = None,
        rollouts: Rollouts | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry("fusion")
        self._store = store
        self._synchrony = synchrony
        self._rollouts = rollouts

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
        self._store.policies.get(clip.policy)  # an unknown one fails before anything is worked out
        wanted = clip.branches or frozenset(Branch)
        reports = [report for report in clip.reports if report.branch in wanted]
        with branch_span(Branch.SYNC) as opened:
            found = await self._synchrony.score(
                clip.motions,
                clip.voice,
                clip.reports,
                wanted=Branch.SYNC in wanted,
                timeout=timeout,
                content=clip.content,
            )
            note_report(opened, found.report)
        if found.report.milliseconds:
            self._telemetry.observe(STAGE_DURATION, found.report.milliseconds / 1000, stage="sync")
        ledger = [*reports, found.report]
        with self._telemetry.stage("head"):
            decision = self._decide(clip, (*clip.models, *found.models), ledger)
        return FusionResult(
            verdict=decision.verdict,
            probability=decision.probability,
            reasons=_reasons(decision.verdict, decision.grounds, found, ledger),
            contributions=decision.contributions,
            sync=found.report,
            policy=decision.policy,
            models=(*found.models, *decision.models),
        )

    def _decide(self, clip: FusionInput, models: Sequence[ModelInfo], ledger: Sequence[BranchReport]) -> Decision:
        """By the heads that may read the scores of these models, or by those on trial that may, too."""
        features, branches = clip_features(ledger), scored_branches(ledger)
        stable = decide(self._store.chosen_for(models), clip.policy, features, branches)
        trial = self._rollouts.heads_on_trial(clip.content) if self._rollouts is not None else None
        heads = self._store.fitting(trial.candidate.version, models) if trial is not None else None
        if trial is None or heads is None:
            return stable
        try:
            candidate = decide(heads, clip.policy, features, branches, candidate=True)
        except BonafideError:
            trial.note_failure()
            return stable
        trial.note_success()
        if stable.probability is not None and candidate.probability is not None:
            trial.note_difference(abs(stable.probability - candidate.probability))
        return candidate if trial.candidate.mode is Mode.CANARY else stable


@dataclass(frozen=True, slots=True)
class Decision:
    """What a set of heads and a policy of it say of one clip."""

    verdict: Verdict
    probability: float | None
    grounds: tuple[ReasonCode, ...]
    contributions: tuple[Contribution, ...]
    policy: PolicyInfo
    models: tuple[ModelInfo, ...]


def decide(
    heads: HeadSet,
    policy: str,
    features: Mapping[str, float],
    branches: frozenset[Branch],
    *,
    candidate: bool = False,
) -> Decision:
    """Apply the head that was fitted for exactly the branches that answered, and the policy.

    Raises:
        InvalidInputError: the set has no such policy.
    """
    rule = heads.policies.get(policy)
    if not branches:
        verdict, grounds = rule.decide(branches, None)
        return Decision(verdict, None, grounds, (), rule.info(branches), ())
    head = heads.heads[branches]
    contributions = head.contributions(features)
    probability = sigmoid(sum(part.log_odds for part in contributions))
    verdict, grounds = rule.decide(branches, probability)
    model = ModelInfo(f"fusion_head.{head.key}", heads.version, head.sha256, HEAD_ENGINE, candidate=candidate)
    return Decision(verdict, probability, grounds, contributions, rule.info(branches), (model,))


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
