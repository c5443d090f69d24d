"""What the frame classifier makes of a clip's face over the survey, in time order: measured beside the rest.

The classifier scores these crops anyway, so its embeddings cost nothing at serving. What is kept on disk is the crops,
so that another classifier costs seconds rather than reading all clips again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.common.settings import EngineChoice
from services.visual.pipeline import VisualPipeline
from services.visual.scoring import FRAME_MODEL, cut
from services.visual.settings import VisualSettings
from services.visual.temporal import FEWEST_CROPS
from training.data import Clip
from training.served import MODEL_REPOSITORY, TIMEOUT_SECONDS
from training.temporal.corpus import ClipRows, cache_path, decoded, keep

BATCH = 8


def with_embeddings(rows: Sequence[ClipRows], clips: Sequence[Clip], cache: Path) -> tuple[ClipRows, ...]:
    """The same clips with the embeddings and the mean logit of the frame classifier that is served.

    Args:
        rows: what is known of the clips.
        clips: rows of the manifest.
        cache: directory of the crops that were cut before, by the file's hash.
    """
    cv2.setNumThreads(1)
    repository = ModelRepository(MODEL_REPOSITORY)
    repository.verified(FRAME_MODEL)
    engine = EmbeddedEngine(repository)
    settings = VisualSettings(model_repository=MODEL_REPOSITORY, engine=EngineChoice.EMBEDDED)
    pipeline = VisualPipeline(engine, settings)
    by_name = {clip.example.file: clip for clip in clips}
    found = []
    for row in rows:
        clip = by_name[row.name]
        path = cache_path(clip, cache, "crops")
        keep(path, partial(_crops, pipeline, clip))
        with np.load(path) as stored:
            found.append(_embedded(engine, row, stored["crops"]))
    return tuple(found)


def _crops(pipeline: VisualPipeline, clip: Clip) -> dict[str, npt.NDArray[np.generic]]:
    """Crops of the most present face, uint8 [n, 224, 224, 3]."""
    pictured = decoded(clip)
    chosen = asyncio.run(pipeline.crops(pictured.survey, pictured.dense, timeout=TIMEOUT_SECONDS))
    own = [crop for crop in chosen if crop.track_id == chosen[0].track_id]
    return {"crops": np.array(cut(own), np.uint8)}


def _embedded(engine: EmbeddedEngine, row: ClipRows, crops: npt.NDArray[np.uint8]) -> ClipRows:
    if len(crops) < FEWEST_CROPS:
        return row
    outputs = [engine.run(FRAME_MODEL, {"crops": crops[at : at + BATCH]}) for at in range(0, len(crops), BATCH)]
    embeddings = np.concatenate([output["embedding"] for output in outputs]).astype(np.float32)
    logit = float(np.mean(np.concatenate([output["logit"] for output in outputs])))
    return replace(row, embeddings=embeddings, frame_logit=logit)
