"""Single pictures through the served detector, crop, frame classifier and patch gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.visual.crops import square_crop
from services.visual.detection import detect_now
from services.visual.scoring import FRAME_MODEL, PATCH_MODEL, sigmoid
from training.data import Example
from training.evaluation.cache import ScoreCache, digest
from training.evaluation.degradation import PICTURE_CONDITIONS
from training.evaluation.discovery import LabelledSet
from training.evaluation.rows import CLEAN, Row
from training.evaluation.work import done
from training.forging import generator
from training.frame.faces import decode, whole_picture
from training.served import visual_fingerprint

MODELS = {"frame": FRAME_MODEL, "patch": PATCH_MODEL}
FOUND = "face_found"
SIZE = "face_size"
BRIGHTNESS = "brightness"
PART = 32
"""Pictures of one job."""


@dataclass(frozen=True, slots=True)
class PictureJob:
    """Some pictures under one condition, by their cache keys."""

    models: Path
    condition: str
    pictures: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class StillOptions:
    """Where models and the cache are, and how many processes work."""

    models: Path
    cache: Path
    processes: int = 1


def score_stills(
    sets: Sequence[LabelledSet], options: StillOptions, condition: str = CLEAN, chosen: frozenset[str] | None = None
) -> list[Row]:
    """Rows of all pictures of some sets.

    Args:
        sets: face sets.
        options: where and how.
        condition: name of a condition, or ``clean``.
        chosen: files to take, as ``set/file``; None means all.

    Returns:
        One row a picture that could be read; logits became probabilities.
    """
    known = ScoreCache(options.cache / f"stills-{visual_fingerprint(options.models)}.jsonl")
    wanted: list[tuple[LabelledSet, Example, str]] = []
    fresh: dict[str, bytes] = {}
    for part in sets:
        for example in part.examples:
            if chosen is not None and f"{part.name}/{example.file}" not in chosen:
                continue
            try:
                encoded = part.archive.read(example)
            except KeyError:
                continue  # listed, but not in the archive
            key = digest(encoded, condition)
            wanted.append((part, example, key))
            if key not in known:
                fresh[key] = encoded
    _complete(known, fresh, options, condition)
    return [_row(part, example, dict(known[key]), condition) for part, example, key in wanted if known[key]]


def _complete(known: ScoreCache, fresh: dict[str, bytes], options: StillOptions, condition: str) -> None:
    items = list(fresh.items())
    jobs = [PictureJob(options.models, condition, tuple(items[at : at + PART])) for at in range(0, len(items), PART)]
    for _, values in done(score_pictures, jobs, title=f"stills, {condition}", processes=options.processes):
        known.put(values)


def _row(part: LabelledSet, example: Example, values: dict[str, float], condition: str) -> Row:
    scores = {branch: float(sigmoid(values.pop(branch))) for branch in MODELS if branch in values}
    return Row(
        name=example.file,
        collection=part.name,
        label=example.fake,
        group=example.group,
        scores=scores,
        source=example.fields.get("source") or "",
        method=(example.fields.get("method") or "") if example.fake else "",
        condition=condition,
        traits=values,
    )


def score_pictures(job: PictureJob) -> dict[str, dict[str, float]]:
    """Cache key → logits by branch and traits; empty for what is no picture."""
    scorer = _scorer(job.models)
    degrade = {condition.name: condition.apply for condition in PICTURE_CONDITIONS}
    results: dict[str, dict[str, float]] = {}
    crops: list[npt.NDArray[np.uint8]] = []
    keys: list[str] = []
    for key, encoded in job.pictures:
        try:
            picture = decode(encoded)
        except (ValueError, IndexError, cv2.error):
            results[key] = {}
            continue
        if job.condition != CLEAN:
            picture = degrade[job.condition](picture, generator(key))
        crop, traits = scorer.cut(picture)
        results[key] = traits
        crops.append(crop)
        keys.append(key)
    for branch, logits in scorer.logits(crops).items():
        for key, logit in zip(keys, logits, strict=True):
            results[key][branch] = logit
    return results


class StillScorer:
    """Detector, crop and the two still networks of one process."""

    def __init__(self, models: Path) -> None:
        cv2.setNumThreads(1)
        repository = ModelRepository(models)
        self._engine = EmbeddedEngine(repository)
        present = set(repository.names())
        self._models = {branch: name for branch, name in MODELS.items() if name in present}

    def cut(self, picture: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], dict[str, float]]:
        """The crop of the largest face, or of the whole picture if there is none; and the face's traits."""
        faces = detect_now(self._engine.run, [picture])[0]
        if len(faces):
            areas = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
            box = faces.boxes[int(np.argmax(areas))]
        else:
            box = whole_picture(picture)
        crop = square_crop(picture, box)
        size = float(min(box[2] - box[0], box[3] - box[1]))
        return crop, {FOUND: float(len(faces) > 0), SIZE: size, BRIGHTNESS: float(crop.mean())}

    def logits(self, crops: Sequence[npt.NDArray[np.uint8]], batch: int = 8) -> dict[str, list[float]]:
        """Branch → calibrated logit of each crop."""
        found: dict[str, list[float]] = {branch: [] for branch in self._models}
        for at in range(0, len(crops), batch):
            inputs = {"crops": np.stack(crops[at : at + batch])}
            for branch, model in self._models.items():
                found[branch] += self._engine.run(model, inputs)["logit"].ravel().astype(float).tolist()
        return found


@cache
def _scorer(models: Path) -> StillScorer:
    return StillScorer(models)
