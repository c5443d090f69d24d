"""Audio-visual synchrony: do the lips and the voice belong together, and at which offset?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.common.evidence import (
    Branch,
    BranchReport,
    ModelInfo,
    MotionSequence,
    Outcome,
    ReasonCode,
    VoiceSequence,
)
from services.common.inference import InferenceEngine
from services.common.models import ModelRepository

SYNC_MODEL = "sync"


@dataclass(frozen=True, slots=True)
class SynchronyResult:
    """The SYNC line of the ledger, what was noticed on the way, and the models that took part."""

    report: BranchReport
    findings: tuple[ReasonCode, ...] = ()
    models: tuple[ModelInfo, ...] = ()


def _silent(outcome: Outcome, reason: ReasonCode | None) -> SynchronyResult:
    return SynchronyResult(BranchReport(Branch.SYNC, outcome, reason))


class Synchrony:
    """Scores synchrony of each face with the voice."""

    def __init__(self, engine: InferenceEngine, repository: ModelRepository) -> None:
        self._engine = engine
        self._repository = repository

    async def score(
        self,
        motions: Sequence[MotionSequence],
        voice: VoiceSequence | None,
        reports: Iterable[BranchReport],
        *,
        wanted: bool,
        timeout: float,  # noqa: ARG002
    ) -> SynchronyResult:
        """The SYNC line of one clip."""
        if not wanted:
            return _silent(Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED)
        return _silent(Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED)
