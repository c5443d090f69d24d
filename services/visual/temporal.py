"""Judging a face over time: a sequence network over the frame classifier's embeddings of one track."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.visual.batching import ModelCalls
from services.visual.scoring import CropScore

MODEL = "temporal"
FEWEST_FRAMES = 8
"""Crops of one track below which there is no sequence to speak of."""


async def score_sequence(calls: ModelCalls, crops: Sequence[CropScore]) -> float:
    """Calibrated logit of the crops of one track, which all carry embeddings, read in time order."""
    ordered = sorted(crops, key=lambda crop: crop.time_us)
    embeddings = np.stack([crop.embedding for crop in ordered if crop.embedding is not None])

    (logit,) = await calls.over(
        MODEL,
        [embeddings],
        batch=1,
        prepare=lambda part: {"embeddings": np.stack(part)},
        finish=lambda _, outputs: [float(outputs["logit"][0, 0])],
    )
    return logit
