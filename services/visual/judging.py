"""From the faces of a clip to the reports of its branches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.errors import BonafideError
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode
from services.common.models import ModelCard
from services.common.tracing import branch_span
from services.visual import ledger
from services.visual.batching import ModelCalls
from services.visual.detection import FloatArray, Picture
from services.visual.ensemble import Ensemble
from services.visual.scoring import (
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


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the crops say: reports, and the track that speaks for the clip (None when no crop was scored).

    ``early_exit`` is set when the gate cleared every face, so that nothing slower need run. ``embeddings`` float32
    [crops, d] are the frame classifier's of the face that speaks, in time order, where it ran.
    """

    reports: tuple[BranchReport, ...]
    speaker: int | None = None
    early_exit: bool = False
    embeddings: FloatArray | None = None


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
        ensemble: the networks that make up FRAME.
        batch: crops a call.
    """

    def __init__(self, calls: ModelCalls, cards: Mapping[str, ModelCard], ensemble: Ensemble, *, batch: int) -> None:
        self._calls = calls
        self._cards = cards
        self._ensemble = ensemble
        self._batch = batch

    async def judge(self, crops: Sequence[FaceCrop], branches: frozenset[Branch]) -> Judgement:
        """One report for each of PATCH and FRAME that is asked for; without a crop, every face was too small."""
        wanted = [branch for branch in (Branch.PATCH, Branch.FRAME) if branch in branches]
        if not crops:
            return Judgement(tuple(ledger.not_applicable(branch, ReasonCode.FACE_TOO_SMALL) for branch in wanted))
        pictures = await asyncio.to_thread(cut, crops)
        threshold = self._early_exit_below()
        attempts: dict[Branch, Attempt] = {}
        if threshold is not None and wanted[:1] == [Branch.PATCH]:
            attempts[Branch.PATCH] = await self._attempt(Branch.PATCH, crops, pictures)
            if _cleared(attempts[Branch.PATCH].scores, threshold):
                spared = [ledger.not_applicable(branch, ReasonCode.EARLY_EXIT) for branch in wanted[1:]]
                return Judgement((*self._reports(attempts), *spared), _speaker(attempts), early_exit=True)
            wanted.remove(Branch.PATCH)
        done = await asyncio.gather(*(self._attempt(branch, crops, pictures) for branch in wanted))
        attempts.update(zip(wanted, done, strict=True))
        speaker = _speaker(attempts)
        return Judgement(tuple(self._reports(attempts)), speaker, embeddings=_embeddings(attempts, speaker))

    def _early_exit_below(self) -> float | None:
        """The gate's certified operating point: clips whose faces all score below it need no slower network."""
        card = self._cards.get(PATCH_MODEL)
        point = card.details.get("operating_point") if card is not None else None
        if not isinstance(point, dict) or not point.get("early_exit"):
            return None
        return float(point["threshold"])

    async def _attempt(self, branch: Branch, crops: Sequence[FaceCrop], pictures: Sequence[Picture]) -> Attempt:
        began = time.monotonic()
        names = self._models(branch)
        try:
            with branch_span(branch):
                found = await asyncio.gather(
                    *(score_crops(self._calls, name, crops, pictures, batch=self._batch) for name in names)
                )
        except BonafideError as error:
            return Attempt(error=error, milliseconds=_since(began))
        scores = found[0] if branch is Branch.PATCH else self._ensemble.combine(dict(zip(names, found, strict=True)))
        return Attempt(tuple(scores), milliseconds=_since(began))

    def _models(self, branch: Branch) -> tuple[str, ...]:
        return (PATCH_MODEL,) if branch is Branch.PATCH else self._ensemble.members

    def _reports(self, attempts: Mapping[Branch, Attempt]) -> list[BranchReport]:
        """Reports of PATCH and FRAME, which let the same face speak."""
        track_id = _speaker(attempts) or 0
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
                    model="+".join(self._versioned(name) for name in self._models(branch)),
                    features=clip_features(branch, attempt.scores, track_id),
                    timeline=timeline(attempt.scores),
                )
            )
        return reports

    def _versioned(self, name: str) -> str:
        return f"{name}/{self._cards[name].version}" if name in self._cards else name


def _speaker(attempts: Mapping[Branch, Attempt]) -> int | None:
    scored = [attempt.scores for attempt in attempts.values() if attempt.scores]
    return speaking_track(scored) if scored else None


def _embeddings(attempts: Mapping[Branch, Attempt], speaker: int | None) -> FloatArray | None:
    """The frame classifier's embeddings of one face in time order; None where there are none."""
    scores = attempts[Branch.FRAME].scores if Branch.FRAME in attempts else ()
    own = sorted((score for score in scores if score.track_id == speaker), key=lambda score: score.time_us)
    rows = [score.embedding for score in own if score.embedding is not None]
    return np.stack(rows) if rows else None


def _cleared(scores: Sequence[CropScore], threshold: float) -> bool:
    """Whether the gate gave every face a probability below its operating point."""
    return bool(scores) and max(float(sigmoid(logit)) for logit in track_logits(scores).values()) < threshold


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
