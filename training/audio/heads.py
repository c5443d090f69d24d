"""What turns fine-structure statistics into one score: strongly regularised linear models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

CLIP = 5.0
SMALLEST_DEVIATION = 1e-6

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LinearHead:
    """score = clip((x − mean) / deviation, ±5) · weight + bias; all float64 [features] but ``bias``."""

    mean: Floats
    deviation: Floats
    weight: Floats
    bias: float

    def score(self, features: npt.NDArray[np.float32]) -> Floats:
        """Features [n, features] to uncalibrated log-odds float64 [n]."""
        standard = np.clip((features - self.mean) / self.deviation, -CLIP, CLIP)
        return np.asarray(standard @ self.weight + self.bias)


def cell_weights(fake: npt.NDArray[np.bool_], sources: Sequence[str], power: float = 1.0) -> Floats:
    """Row weights that even out (label, source) cells, both labels weighing the same.

    Args:
        fake: [n].
        sources: [n].
        power: a row weighs its cell's size to the power of −``power``: 1 gives every cell the same weight
            within its label, 0 every row.

    Returns:
        float64 [n] that sum to n.
    """
    cells = list(zip(fake.tolist(), sources, strict=True))
    sizes = Counter(cells)
    weights = np.array([sizes[cell] ** -power for cell in cells])
    for label in (False, True):
        weights[fake == label] /= weights[fake == label].sum()
    return np.asarray(weights * (len(cells) / 2))


def fit_linear(features: npt.NDArray[np.float32], fake: npt.NDArray[np.bool_], weights: Floats, c: float) -> LinearHead:
    """Logistic regression with a strong L2 penalty on standardised, clipped features."""
    mean = np.average(features, axis=0, weights=weights).astype(np.float64)
    variance = np.average((features - mean) ** 2, axis=0, weights=weights)
    deviation = np.sqrt(variance).astype(np.float64) + SMALLEST_DEVIATION
    standard = np.clip((features - mean) / deviation, -CLIP, CLIP)
    model = LogisticRegression(C=c, max_iter=1000).fit(standard, fake, sample_weight=weights)
    return LinearHead(mean, deviation, model.coef_[0].astype(np.float64), float(model.intercept_[0]))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated log-odds = ``slope`` · score + ``offset`` (Platt 1999)."""

    slope: float
    offset: float

    def apply(self, scores: Floats) -> Floats:
        """Scores to calibrated log-odds, same shape."""
        return scores * self.slope + self.offset


def fit_calibration(scores: Floats, fake: npt.NDArray[np.bool_], weights: Floats) -> Calibration:
    """Platt scaling on scores of utterances whose source was held out when they were scored."""
    scale = float(scores.std())
    model = LogisticRegression(C=1e3).fit(scores[:, None] / scale, fake, sample_weight=weights)
    return Calibration(float(model.coef_[0, 0]) / scale, float(model.intercept_[0]))
