"""From the faces of a clip to the reports of its branches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.common.errors import BonafideError
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode
from services.common.models import ModelCard
from services.visual import ledger, temporal
from services.visual.batching import ModelCalls
from services.visual.detection import Picture
from services.visual.scoring import (
    FRAME_MODEL,
    PATCH_MODEL,
    CropScore,
    FaceCrop,
    clip_features,
    clip_score,
    cut,
    score_crops,
    sigmoid,
    speaking_track,
    timeline,
    track_logits,
)

MODELS = {Branch.PATCH: PATCH_MODEL, Branch.FRAME: FRAME_MODEL, Branch.TEMPORAL: temporal.MODEL}


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of running one network over the crops: its scores, or the error that ended it."""

    scores: tuple[CropScore, ...] = ()
    error: BonafideError | None = None
    milliseconds: float = 0.0


class Judge:
    """Scores the crops of one clip and writes the lines of the ledger.

    Args:
        calls: runs the models.
        cards: cards of the deployed models, by name.
        batch: crops a call.
    """

    def __init__(self, calls: ModelCalls, cards: Mapping[str, ModelCard], *, batch: int) -> None:
        self._calls = calls
        self._cards = cards
        self._batch = batch

    async def reports(self, crops: Sequence[FaceCrop], branches: frozenset[Branch]) -> list[BranchReport]:
        """One report for each of the branches asked for; without a crop, every face was too small."""
        if not crops:
            return [ledger.not_applicable(branch, ReasonCode.FACE_TOO_SMALL) for branch in branches]
        pictures = await asyncio.to_thread(cut, crops)
        wanted = [branch for branch in (Branch.PATCH, Branch.FRAME) if branch in branches]
        if Branch.TEMPORAL in branches and temporal.MODEL in self._cards and Branch.FRAME not in wanted:
            wanted.append(Branch.FRAME)  # its embeddings are what the sequence is made of
        threshold = self._early_exit_below()
        attempts: dict[Branch, Attempt] = {}
        if threshold is not None and wanted[:1] == [Branch.PATCH]:
            attempts[Branch.PATCH] = await self._attempt(Branch.PATCH, crops, pictures)
            if _cleared(attempts[Branch.PATCH].scores, threshold):
                spared = [ledger.not_applicable(b, ReasonCode.EARLY_EXIT) for b in branches if b is not Branch.PATCH]
                return [*self._crop_reports(attempts), *spared]
            wanted.remove(Branch.PATCH)
        done = await asyncio.gather(*(self._attempt(branch, crops, pictures) for branch in wanted))
        attempts.update(zip(wanted, done, strict=True))
        reports = [report for report in self._crop_reports(attempts) if report.branch in branches]
        if Branch.TEMPORAL in branches:
            reports.append(await self._temporal_report(attempts))
        return reports

    def _early_exit_below(self) -> float | None:
        """The gate's certified operating point: clips whose faces all score below it need no slower network."""
        card = self._cards.get(PATCH_MODEL)
        point = card.details.get("operating_point") if card is not None else None
        if not isinstance(point, dict) or not point.get("early_exit"):
            return None
        return float(point["threshold"])

    async def _attempt(self, branch: Branch, crops: Sequence[FaceCrop], pictures: Sequence[Picture]) -> Attempt:
        began = time.monotonic()
        try:
            scores = await score_crops(self._calls, MODELS[branch], crops, pictures, batch=self._batch)
        except BonafideError as error:
            return Attempt(error=error, milliseconds=_since(began))
        return Attempt(tuple(scores), milliseconds=_since(began))

    def _crop_reports(self, attempts: Mapping[Branch, Attempt]) -> list[BranchReport]:
        """Reports of PATCH and FRAME, which let the same face speak."""
        scored = [attempt.scores for attempt in attempts.values() if attempt.scores]
        track_id = speaking_track(scored) if scored else 0
        reports = []
        for branch, attempt in attempts.items():
            if attempt.error is not None:
                reports.append(ledger.failure(branch, attempt.error, attempt.milliseconds))
                continue
            reports.append(
                BranchReport(
                    branch,
                    Outcome.SCORED,
                    score=clip_score(attempt.scores, track_id),
                    milliseconds=attempt.milliseconds,
                    model=self._model(MODELS[branch]),
                    features=clip_features(branch, attempt.scores, track_id),
                    timeline=timeline(attempt.scores),
                )
            )
        return reports

    async def _temporal_report(self, attempts: Mapping[Branch, Attempt]) -> BranchReport:
        if temporal.MODEL not in self._cards:
            return BranchReport(Branch.TEMPORAL, Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED)
        frames = attempts[Branch.FRAME]
        if frames.error is not None:
            return ledger.failure(Branch.TEMPORAL, frames.error)
        track_id = speaking_track([attempt.scores for attempt in attempts.values() if attempt.scores])
        crops = [score for score in frames.scores if score.track_id == track_id]
        if len(crops) < temporal.FEWEST_FRAMES:
            return ledger.not_applicable(Branch.TEMPORAL, ReasonCode.CLIP_TOO_SHORT)
        began = time.monotonic()
        try:
            probability = float(sigmoid(await temporal.score_sequence(self._calls, crops)))
        except BonafideError as error:
            return ledger.failure(Branch.TEMPORAL, error, _since(began))
        return BranchReport(
            Branch.TEMPORAL,
            Outcome.SCORED,
            score=probability,
            milliseconds=_since(began),
            model=self._model(temporal.MODEL),
            features={"temporal_prob_fake": probability},
        )

    def _model(self, name: str) -> str:
        return f"{name}/{self._cards[name].version}" if name in self._cards else name


def _cleared(scores: Sequence[CropScore], threshold: float) -> bool:
    """Whether the gate gave every face a probability below its operating point."""
    return bool(scores) and max(float(sigmoid(logit)) for logit in track_logits(scores).values()) < threshold


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
