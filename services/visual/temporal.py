"""Judging a face over time: its finest texture from frame to frame, and how its parts move together.

The classifiers of single crops were trained on stills of swapped faces, and pass most lip-sync, talking-head
and reenactment video. What such video lacks is in the residuals of unscaled pixels and in the motion of the
face, so this branch reads both from the dense window. Beside them it reads how the frame classifier's embedding
changes over the crops of the survey, which exist by then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.errors import BonafideError
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode, ScorePoint
from services.common.models import ModelCard
from services.visual import ledger
from services.visual.batching import ModelCalls
from services.visual.detection import FloatArray, Picture
from services.visual.expression import expression_rows
from services.visual.landmarks import Mesh
from services.visual.residuals import TextureRun, texture_runs
from services.visual.scoring import sigmoid

MODEL = "temporal"
LEAST_OBSERVED_US = 1_000_000
"""Dense frames of one face must cover this long to be judged."""
FEWEST_MESHES = 16
FEWEST_ROWS = 8
"""Texture rows below which their statistics say nothing."""
FEWEST_CROPS = 4
"""Embeddings below which their changes say nothing."""
EMBEDDINGS_OF = "embeddings_of"
"""Entry of the card of a network that reads embeddings: ``sha256`` of the frame classifier, their ``width``."""


@dataclass(frozen=True, slots=True)
class FaceSequence:
    """One face in the dense frames: its meshes by index of frame, in pixels of that frame."""

    track_id: int
    meshes: Mapping[int, Mesh]


@dataclass(frozen=True, slots=True)
class TemporalInputs:
    """What the network reads: ``texture`` float32 [rows, 123], ``motion`` float32 [frames, 17]."""

    texture: FloatArray
    motion: FloatArray


def measure(
    pictures: Sequence[Picture], face: FaceSequence, times: Sequence[int]
) -> tuple[TemporalInputs, tuple[TextureRun, ...]] | None:
    """Read texture and motion of one face off the dense frames.

    Args:
        pictures: uint8 [height, width, 3] RGB, all of one size.
        face: where the face is in them.
        times: microseconds of the pictures, increasing.

    Returns:
        The network's inputs and the runs of frames that the texture was read from; None when the face is
        seen too briefly.
    """
    meshes = {index: mesh.landmarks for index, mesh in sorted(face.meshes.items()) if mesh.trusted}
    if len(meshes) < FEWEST_MESHES or times[max(meshes)] - times[min(meshes)] < LEAST_OBSERVED_US:
        return None
    runs = texture_runs(pictures, meshes)
    if sum(len(run.rows) for run in runs) < FEWEST_ROWS:
        return None
    texture = np.concatenate([run.rows for run in runs])
    return TemporalInputs(texture, expression_rows(np.stack(list(meshes.values())))), runs


def embedding_rows(card: ModelCard, frame_card: ModelCard | None, embeddings: FloatArray | None) -> FloatArray | None:
    """What to read of a face's embeddings.

    Args:
        card: of the temporal network.
        frame_card: of the frame classifier that made them.
        embeddings: float32 [crops, d], in time order; None when no crop of the face was scored.

    Returns:
        None for a network that reads none; NaN where there are too few, or where they are those of another frame
        classifier than the one that it was fitted on.
    """
    wanted = card.details.get(EMBEDDINGS_OF)
    if wanted is None:
        return None
    known = frame_card is not None and wanted["sha256"] == frame_card.sha256
    if known and embeddings is not None and len(embeddings) >= FEWEST_CROPS:
        return embeddings
    return np.full((FEWEST_CROPS, int(wanted["width"])), np.nan, np.float32)


async def judge_sequence(
    calls: ModelCalls,
    card: ModelCard | None,
    pictures: Sequence[Picture],
    times: Sequence[int],
    face: FaceSequence,
    embeddings: FloatArray | None = None,
) -> BranchReport:
    """The TEMPORAL line of the ledger, from one face; ``embeddings`` are what ``embedding_rows`` says.

    The timeline holds the score of each run of frames, its texture judged beside motion and embeddings of the whole.
    """
    if card is None:
        return BranchReport(Branch.TEMPORAL, Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED)
    began = time.monotonic()
    if not face.meshes and times and times[-1] - times[0] >= LEAST_OBSERVED_US:
        return ledger.not_applicable(Branch.TEMPORAL, ReasonCode.FACE_TOO_SMALL)
    measured = await asyncio.to_thread(measure, pictures, face, times)
    if measured is None:
        return ledger.not_applicable(Branch.TEMPORAL, ReasonCode.CLIP_TOO_SHORT)
    whole, runs = measured
    parts = [TemporalInputs(run.rows, whole.motion) for run in runs]
    try:
        logits = await calls.over(
            MODEL,
            [whole, *parts],
            batch=1,
            prepare=lambda items: _inputs(items[0], embeddings),
            finish=lambda _, outputs: [float(outputs["logit"][0, 0])],
        )
    except BonafideError as error:
        return ledger.failure(Branch.TEMPORAL, error, _since(began))
    probability, *of_runs = (float(value) for value in sigmoid(logits))
    return BranchReport(
        Branch.TEMPORAL,
        Outcome.SCORED,
        score=probability,
        milliseconds=_since(began),
        model=f"{card.name}/{card.version}",
        features={"temporal_prob_fake": probability},
        timeline=tuple(
            _score_point(run, times, face.track_id, score) for run, score in zip(runs, of_runs, strict=True)
        ),
    )


def _inputs(inputs: TemporalInputs, embeddings: FloatArray | None) -> dict[str, FloatArray]:
    rows = {"texture": inputs.texture[None], "motion": inputs.motion[None]}
    return rows if embeddings is None else rows | {"embeddings": embeddings[None]}


def _score_point(run: TextureRun, times: Sequence[int], track_id: int, score: float) -> ScorePoint:
    start, end = times[run.first], times[run.first + len(run.rows) - 1]
    return ScorePoint(start, end - start, track_id, score)


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
