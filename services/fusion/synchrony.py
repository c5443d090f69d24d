"""Audio-visual synchrony: do the lips and the voice belong together, and at which offset?

The network (model ``sync``) compares lips and voice at 31 lags and gives calibrated log-odds of their not
belonging together. A clip is in sync when any of its faces is: whoever speaks need not be the only one seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from services.common.clip_models import ClipModels, FixedModels, Models
from services.common.errors import BonafideError, DeadlineError, ModelNotDeployedError
from services.common.evidence import (
    VISUAL_BRANCHES,
    Branch,
    BranchReport,
    ModelInfo,
    MotionSequence,
    Outcome,
    ReasonCode,
    ScorePoint,
    VoiceSequence,
)
from services.common.inference import InferenceEngine
from services.common.models import HEADS, ModelCard, ModelRepository
from services.fusion.clock import SLOT_US, AlignedPair, align
from services.fusion.heads import sigmoid

SYNC_MODEL = "sync"
WINDOW_SLOTS = 50
"""Slots of one window of the network, two seconds; shorter clips are not judged."""
HOP_SLOTS = 25
"""Slots from one window to the next."""
STILL_ACTIVITY = 0.004
"""Root mean square of lip movement, in distances between the eyes' corners, below which a face is a still."""
OUT_OF_SYNC_ABOVE = 0.8
"""P(out of sync) from which it is named among the reasons."""
_MISSING = frozenset({Outcome.NOT_APPLICABLE, Outcome.TIMED_OUT, Outcome.FAILED})


@dataclass(frozen=True, slots=True)
class SynchronyResult:
    """The SYNC line of the ledger, what was noticed on the way, and the models that took part."""

    report: BranchReport
    findings: tuple[ReasonCode, ...] = ()
    models: tuple[ModelInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the network says of one face: log-odds of being out of sync, whole and by window, and lags.

    ``curve`` is float32 [lags], the mean similarity at each lag; the middle one is lag 0, and later ones mean
    that the voice comes later than the lips.
    """

    pair: AlignedPair
    log_odds: float
    window_log_odds: npt.NDArray[np.float32]
    curve: npt.NDArray[np.float32]

    @property
    def offset_us(self) -> int:
        """By how much the voice comes after the lips, microseconds; negative when before."""
        return (int(np.argmax(self.curve)) - len(self.curve) // 2) * SLOT_US

    @property
    def confidence(self) -> float:
        """How far the best lag stands out above the median one, in cosine similarity, 0 or more."""
        return float(np.max(self.curve) - np.median(self.curve))

    def timeline(self) -> tuple[ScorePoint, ...]:
        """P(out of sync) of each second, from the two seconds around it."""
        first = self.pair.start_us + (WINDOW_SLOTS - HOP_SLOTS) * SLOT_US // 2
        length = HOP_SLOTS * SLOT_US
        return tuple(
            ScorePoint(first + index * length, length, self.pair.track_id, sigmoid(float(value)))
            for index, value in enumerate(self.window_log_odds)
        )


def lip_activity(pair: AlignedPair) -> float:
    """Root mean square of the lips' movement about their mean, in distances between the eyes' corners."""
    return float(np.sqrt(np.mean((pair.motion - pair.motion.mean(axis=0)) ** 2)))


class Synchrony:
    """Scores synchrony of each face with the voice.

    Args:
        engine: where the network runs.
        repository: holds its card.
        models: chooses the version of the network; that of the card on ``engine`` when None.
    """

    def __init__(self, engine: InferenceEngine, repository: ModelRepository, models: Models | None = None) -> None:
        self._repository = repository
        self._models = models or FixedModels(engine, repository)

    async def score(
        self,
        motions: Sequence[MotionSequence],
        voice: VoiceSequence | None,
        reports: Iterable[BranchReport],
        *,
        wanted: bool,
        timeout: float,
        content: str = "",
    ) -> SynchronyResult:
        """The SYNC line of one clip.

        Args:
            motions: lip motion of each face.
            voice: voice features, if there is sound.
            reports: the other lines of the ledger; they say why lips or speech are missing.
            wanted: whether the caller asked for it.
            timeout: seconds that this may take.
            content: hash of the clip's file, where it is known.
        """
        if not wanted:
            return _silent(Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED)
        if SYNC_MODEL not in self._repository.names():
            return _silent(Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED)
        lacking = _lacking(motions, voice, list(reports))
        if lacking is not None or voice is None:
            return lacking or _silent(Outcome.NOT_APPLICABLE, ReasonCode.NO_AUDIO)
        pairs = [pair for pair in (align(motion, voice) for motion in motions) if pair is not None]
        pairs = [pair for pair in pairs if len(pair.motion) >= WINDOW_SLOTS]
        if not pairs:
            return _silent(Outcome.NOT_APPLICABLE, ReasonCode.CLIP_TOO_SHORT)

        async def score(models: ClipModels, seconds: float) -> SynchronyResult:
            return await _scored(pairs, models, seconds)

        return await self._models.answer(content, score, timeout=timeout)


def verified_models(repository: ModelRepository) -> dict[str, ModelCard]:
    """Cards of the network and of the staged fusion heads that a repository is at, each file as its card says.

    Raises:
        BonafideError: one of them is absent or not to be trusted.
    """
    heads = (HEADS,) if HEADS in repository.versions and repository.versions[HEADS] != "1" else ()
    return repository.verify_all(heads, (SYNC_MODEL,))


async def _scored(pairs: Sequence[AlignedPair], models: ClipModels, timeout: float) -> SynchronyResult:
    begun = time.monotonic()
    try:
        card = models.repository.card(SYNC_MODEL)
        found = await asyncio.gather(*(_agreement(pair, models.engine, timeout) for pair in pairs))
    except BonafideError as error:
        return _failed(error)
    speaker = min(found, key=lambda agreement: agreement.log_odds)
    milliseconds = (time.monotonic() - begun) * 1000
    report = replace(_report(speaker), milliseconds=milliseconds, model=f"{card.name}/{card.version}")
    return SynchronyResult(report, _findings(speaker), (models.info(card),))


async def _agreement(pair: AlignedPair, engine: InferenceEngine, timeout: float) -> Agreement:
    inputs = {"motion": pair.motion[None], "voice": pair.voice[None]}
    outputs = await engine.infer(SYNC_MODEL, inputs, timeout=timeout)
    return Agreement(pair, float(outputs["logit"][0, 0]), outputs["window_logit"][0], outputs["curve"][0])


def _report(speaker: Agreement) -> BranchReport:
    probability = sigmoid(speaker.log_odds)
    return BranchReport(
        Branch.SYNC,
        Outcome.SCORED,
        score=probability,
        features={
            "sync_prob": probability,
            "sync_offset_us": float(speaker.offset_us),
            "sync_confidence": speaker.confidence,
            "sync_lip_activity": lip_activity(speaker.pair),
        },
        timeline=speaker.timeline(),
    )


def _findings(speaker: Agreement) -> tuple[ReasonCode, ...]:
    if lip_activity(speaker.pair) < STILL_ACTIVITY:
        return (ReasonCode.STILL_FACE,)
    return (ReasonCode.OUT_OF_SYNC,) if sigmoid(speaker.log_odds) >= OUT_OF_SYNC_ABOVE else ()


def _lacking(
    motions: Sequence[MotionSequence], voice: VoiceSequence | None, reports: Sequence[BranchReport]
) -> SynchronyResult | None:
    """Why there is nothing to compare, if so: speech is missing, or a face, as their branches say."""
    by_branch = {report.branch: report for report in reports}
    heard = by_branch.get(Branch.AUDIO)
    if heard is not None and heard.outcome is Outcome.NOT_APPLICABLE:
        return _silent(Outcome.NOT_APPLICABLE, heard.reason)
    if voice is None:
        if heard is not None and heard.outcome in _MISSING:
            return _silent(heard.outcome, heard.reason)
        return _silent(Outcome.NOT_APPLICABLE, ReasonCode.NO_AUDIO)
    if not motions:
        seen = [by_branch[branch] for branch in VISUAL_BRANCHES if branch in by_branch]
        for report in seen:
            if report.outcome in _MISSING and report.reason is not ReasonCode.EARLY_EXIT:
                return _silent(report.outcome, report.reason)
        scored = any(report.outcome is Outcome.SCORED for report in seen)
        return _silent(Outcome.NOT_APPLICABLE, ReasonCode.CLIP_TOO_SHORT if scored else ReasonCode.NO_FACE)
    return None


def _failed(error: BonafideError) -> SynchronyResult:
    if isinstance(error, ModelNotDeployedError):
        return _silent(Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED)
    if isinstance(error, DeadlineError):
        return _silent(Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT)
    return _silent(Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE)


def _silent(outcome: Outcome, reason: ReasonCode | None) -> SynchronyResult:
    return SynchronyResult(BranchReport(Branch.SYNC, outcome, reason))
