"""Judging faces one by one: the patch gate and the frame classifier over crops, and what they say of the clip.

Each crop gets a calibrated logit. A track's logit is the mean over its crops: frames of one face are far from
independent, so adding their evidence up would overstate it. A clip is a deepfake when *any* face in it is, so
the clip speaks through its most suspicious face; but the largest of many noisy values is large by chance, so
only faces that are well supported by crops may speak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.evidence import Branch, ScorePoint
from services.visual.batching import ModelCalls, stacked
from services.visual.crops import MIN_FACE_SIZE, square_crop
from services.visual.detection import FloatArray, Picture
from services.visual.tracking import Sighting, Track

PATCH_MODEL = "patch_gate"
FRAME_MODEL = "frame_classifier"
WELL_SUPPORTED = 0.25
"""Share of the best supported track's crops that a track needs to speak for the clip."""
ENOUGH_CROPS = 3
"""Crops with which a track may always speak, unless it is a passer-by beside a much longer one."""


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """One face to judge: where and when, and the picture and box (pixels) it is cut from."""

    track_id: int
    time_us: int
    picture: Picture
    box: FloatArray


@dataclass(frozen=True, slots=True)
class CropScore:
    """What a network says of one crop.

    ``logit`` is calibrated; ``patches`` is how many the patch gate judged; ``embedding`` float32 [d] is the
    frame classifier's; ``familiarity``, log-odds that the crop looks like the swaps that the frame classifier learnt
    from, is the ensemble's gate's, and 0 from all others.
    """

    track_id: int
    time_us: int
    logit: float
    patches: int = 0
    embedding: FloatArray | None = None
    familiarity: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """How many crops are judged: of one track, and of the whole clip."""

    most_a_track: int
    most: int


def face_size(sighting: Sighting, picture: Picture) -> float:
    """Shorter side of a face, pixels of the picture."""
    height, width = picture.shape[:2]
    across, down = (sighting.box[2:] - sighting.box[:2]) * (width, height)
    return float(min(across, down))


def choose_crops(
    tracks: Sequence[Track], survey: Sequence[Picture], dense: Sequence[Picture], choice: Choice
) -> list[FaceCrop]:
    """Pick the faces to judge: survey frames at native resolution, or dense frames of faces seen only there.

    Args:
        tracks: the faces, most present first.
        survey: pictures that sightings with ``dense`` unset point into.
        dense: pictures that the others point into.
        choice: limits; the clip's is shared evenly, but every track may have ``ENOUGH_CROPS``.

    Returns:
        Crops of at least MIN_FACE_SIZE, spread evenly over each track's time.
    """
    share = max(min(choice.most_a_track, choice.most // max(len(tracks), 1)), ENOUGH_CROPS)
    chosen: list[FaceCrop] = []
    for track in tracks:
        for of_dense, pictures in ((False, survey), (True, dense)):
            usable = [
                sighting
                for sighting in track.sightings
                if sighting.dense is of_dense and face_size(sighting, pictures[sighting.index]) >= MIN_FACE_SIZE
            ]
            if usable:
                places = np.linspace(0, len(usable) - 1, min(share, len(usable))).round().astype(int)
                chosen += [_crop(track, usable[place], pictures[usable[place].index]) for place in places]
                break
    return chosen


def _crop(track: Track, sighting: Sighting, picture: Picture) -> FaceCrop:
    height, width = picture.shape[:2]
    box = sighting.box * np.array([width, height, width, height], np.float32)
    return FaceCrop(track.track_id, sighting.time_us, picture, box)


def cut(crops: Sequence[FaceCrop]) -> list[Picture]:
    """The crops as uint8 [224, 224, 3] pictures, for all networks alike."""
    return [square_crop(crop.picture, crop.box) for crop in crops]


async def score_crops(
    calls: ModelCalls, model: str, crops: Sequence[FaceCrop], pictures: Sequence[Picture], *, batch: int
) -> list[CropScore]:
    """Run one network over crops.

    Args:
        calls: runs the model.
        model: PATCH_MODEL or a member of the ensemble.
        crops: what the pictures show.
        pictures: uint8 [224, 224, 3], one a crop.
        batch: crops a call.
    """

    def prepare(part: Sequence[tuple[FaceCrop, Picture]]) -> dict[str, npt.NDArray[Any]]:
        return stacked("crops", [picture for _, picture in part])

    def finish(part: Sequence[tuple[FaceCrop, Picture]], outputs: Mapping[str, npt.NDArray[Any]]) -> list[CropScore]:
        patches = outputs["patch_logits"][0].size if "patch_logits" in outputs else 0
        embeddings, familiarity = outputs.get("embedding"), outputs.get("familiarity")
        return [
            CropScore(
                crop.track_id,
                crop.time_us,
                float(outputs["logit"][place, 0]),
                patches,
                None if embeddings is None else embeddings[place],
                0.0 if familiarity is None else float(familiarity[place, 0]),
            )
            for place, (crop, _) in enumerate(part)
        ]

    pairs = list(zip(crops, pictures, strict=True))
    return await calls.over(model, pairs, batch=batch, prepare=prepare, finish=finish)


def sigmoid(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Probability of natural log-odds, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64))), np.float64)


def track_logits(scores: Sequence[CropScore]) -> dict[int, float]:
    """Mean logit of the crops of each track."""
    by_track: dict[int, list[float]] = {}
    for score in scores:
        by_track.setdefault(score.track_id, []).append(score.logit)
    return {track_id: float(np.mean(logits)) for track_id, logits in by_track.items()}


def speaking_track(branches: Sequence[Sequence[CropScore]]) -> int:
    """The track that speaks for the clip: of the well supported ones, the most suspicious to all branches together.

    Both branches then judge the same face, so that fusion never mixes evidence of two people.

    Args:
        branches: the crop scores of each branch that has some; not empty.
    """
    counts: dict[int, int] = {}
    for score in branches[0]:
        counts[score.track_id] = counts.get(score.track_id, 0) + 1
    most = max(counts.values())
    able = [track for track, count in counts.items() if count >= max(WELL_SUPPORTED * most, min(ENOUGH_CROPS, most))]
    logits = [track_logits(scores) for scores in branches]
    return max(able, key=lambda track: (sum(of_branch.get(track, 0.0) for of_branch in logits), -track))


def clip_score(scores: Sequence[CropScore], track_id: int) -> float:
    """A branch's P(deepfake) of the clip: that of the track which speaks for it."""
    return float(sigmoid(track_logits(scores)[track_id]))


def clip_features(branch: Branch, scores: Sequence[CropScore], track_id: int) -> dict[str, float]:
    """The numbers that fusion reads of PATCH or FRAME, from the crops of one track."""
    own = [score for score in scores if score.track_id == track_id]
    probabilities = sigmoid([score.logit for score in own])
    prefix = "tiny" if branch is Branch.PATCH else "visual"
    features = {
        f"{prefix}_prob_mean": float(probabilities.mean()),
        f"{prefix}_prob_max": float(probabilities.max()),
        f"{prefix}_prob_p90": float(np.percentile(probabilities, 90)),
    }
    if branch is Branch.PATCH:
        return features | {"tiny_num_files": float(len(own)), "tiny_num_patches": float(sum(s.patches for s in own))}
    return features | {"visual_num_faces": float(len(own))}


def timeline(scores: Sequence[CropScore]) -> tuple[ScorePoint, ...]:
    """Every crop's own score, in time order; single pictures have no length."""
    ordered = sorted(scores, key=lambda score: (score.time_us, score.track_id))
    return tuple(ScorePoint(score.time_us, 0, score.track_id, float(sigmoid(score.logit))) for score in ordered)
