"""Single pictures through the served detector, crop, frame classifier and patch gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.visual import crops, detection
from services.visual.crops import square_crop
from services.visual.detection import detect_now
from services.visual.ensemble import Ensemble, read_ensemble
from services.visual.scoring import PATCH_MODEL, sigmoid
from training.data import Example
from training.evaluation.cache import ScoreCache, Values, digest
from training.evaluation.degradation import PICTURE_CONDITIONS
from training.evaluation.discovery import LabelledSet
from training.evaluation.rows import CLEAN, Row
from training.evaluation.work import Means, done
from training.forging import generator
from training.frame.faces import decode, whole_picture
from training.served import code_fingerprint

LOGIT = "logit"
FAMILIARITY = "familiarity"
FOUND = "face_found"
SIZE = "face_size"
BRIGHTNESS = "brightness"
PART = 32
"""Pictures of one job."""


FACE = "face"
"""Under this name the traits of the face are kept, beside the networks' logits."""


@dataclass(frozen=True, slots=True)
class PictureJob:
    """Some pictures under one condition: cache keys by what is wanted (a network or FACE), and the bytes."""

    models: Path
    condition: str
    pictures: tuple[tuple[Mapping[str, str], bytes], ...]


def score_stills(
    sets: Sequence[LabelledSet], options: Means, condition: str = CLEAN, chosen: frozenset[str] | None = None
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
    known, ensemble = ScoreCache(options.cache / "stills.jsonl"), read_ensemble(ModelRepository(options.models))
    states = fingerprints(options.models)
    wanted: list[tuple[LabelledSet, Example, Mapping[str, str]]] = []
    fresh: dict[str, tuple[Mapping[str, str], bytes]] = {}
    for part in sets:
        for example in part.examples:
            if chosen is not None and f"{part.name}/{example.file}" not in chosen:
                continue
            try:
                encoded = part.archive.read(example)
            except KeyError:
                continue  # listed, but not in the archive
            keys = {what: digest(encoded, condition, what, state) for what, state in states.items()}
            wanted.append((part, example, keys))
            missing = {what: key for what, key in keys.items() if key not in known}
            if missing:
                fresh[keys[FACE]] = (missing, encoded)
    items = list(fresh.values())
    jobs = [PictureJob(options.models, condition, tuple(items[at : at + PART])) for at in range(0, len(items), PART)]
    for _, values in done(score_pictures, jobs, title=f"stills, {condition}", processes=options.processes):
        known.put(values)
    rows = (
        _row(part, example, {what: known[key] for what, key in keys.items()}, condition, ensemble)
        for part, example, keys in wanted
    )
    return [row for row in rows if row.traits]


def fingerprints(models: Path) -> dict[str, str]:
    """What the logit of each network, and the face itself, depend on."""
    repository = ModelRepository(models)
    present = set(repository.names())
    code = code_fingerprint((Path(crops.__file__), Path(detection.__file__)))
    face = f"{repository.card(detection.MODEL).sha256}:{code}"
    served = [name for name in (PATCH_MODEL, *read_ensemble(repository).members) if name in present]
    return {FACE: face} | {name: f"{face}:{repository.card(name).sha256}" for name in served}


def _row(part: LabelledSet, example: Example, values: Mapping[str, Values], condition: str, ensemble: Ensemble) -> Row:
    logits = {name: found[LOGIT] for name, found in values.items() if LOGIT in found}
    scores = {"patch": float(sigmoid(logits[PATCH_MODEL]))} if PATCH_MODEL in logits else {}
    if set(ensemble.members) <= logits.keys():
        familiarity = values[ensemble.gate][FAMILIARITY] if ensemble.gate else 0.0
        scores["frame"] = float(sigmoid(ensemble.logit(logits, familiarity)))
    return Row(
        name=example.file,
        collection=part.name,
        label=example.fake,
        group=example.group,
        scores=scores,
        source=example.fields.get("source") or "",
        method=(example.fields.get("method") or "") if example.fake else "",
        condition=condition,
        traits=values[FACE],
    )


def score_pictures(job: PictureJob) -> dict[str, dict[str, float]]:
    """Cache key → logit of a network or traits of a face; empty for what is no picture."""
    scorer = _scorer(job.models)
    degrade = {condition.name: condition.apply for condition in PICTURE_CONDITIONS}
    results: dict[str, dict[str, float]] = {}
    cut: list[tuple[Mapping[str, str], npt.NDArray[np.uint8]]] = []
    for keys, encoded in job.pictures:
        try:
            picture = decode(encoded)
        except (ValueError, IndexError, cv2.error):
            results |= {key: {} for key in keys.values()}
            continue
        if job.condition != CLEAN:
            picture = degrade[job.condition](picture, generator(digest(encoded), job.condition))
        crop, traits = scorer.cut(picture)
        cut.append((keys, crop))
        if FACE in keys:
            results[keys[FACE]] = traits
    for network in sorted({name for keys, _ in cut for name in keys} - {FACE}):
        chosen = [(keys[network], crop) for keys, crop in cut if network in keys]
        answers = scorer.answers(network, [crop for _, crop in chosen])
        results |= {key: answer for (key, _), answer in zip(chosen, answers, strict=True)}
    return results


class StillScorer:
    """Detector, crop and the networks over crops of one process."""

    def __init__(self, models: Path) -> None:
        cv2.setNumThreads(1)
        self._engine = EmbeddedEngine(ModelRepository(models))

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

    def answers(self, network: str, crops: Sequence[npt.NDArray[np.uint8]], batch: int = 8) -> list[dict[str, float]]:
        """A network's calibrated logit of each crop, and from the ensemble's gate how familiar it is."""
        found: list[dict[str, float]] = []
        for at in range(0, len(crops), batch):
            outputs = self._engine.run(network, {"crops": np.stack(crops[at : at + batch])})
            columns = {name: outputs[name].ravel().astype(float) for name in (LOGIT, FAMILIARITY) if name in outputs}
            found += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return found


@cache
def _scorer(models: Path) -> StillScorer:
    return StillScorer(models)
