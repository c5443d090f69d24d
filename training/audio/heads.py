"""What turns fine-structure statistics into one score: strongly regularised linear models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

CLIP = 5.0
SMALLEST_DEVIATION = 1e-3
"""Added to deviations: a band that a channel leaves empty varies by rounding alone, which must not be amplified."""

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scaler:
    """clip((x − mean) / deviation, ±5); both float32 [features]."""

    mean: Features
    deviation: Features

    def apply(self, features: Features) -> Features:
        """Features [n, features] to standard ones of the same shape."""
        return np.asarray(np.clip((features - self.mean) / self.deviation, -CLIP, CLIP), np.float32)


def fit_scaler(features: Features, weights: Floats) -> Scaler:
    """Weighted mean and standard deviation of every feature."""
    share = (weights / weights.sum()).astype(np.float32)
    mean = share @ features
    variance = np.maximum(share @ (features - mean) ** 2, 0.0)
    return Scaler(mean, np.sqrt(variance) + np.float32(SMALLEST_DEVIATION))


@dataclass(frozen=True, slots=True)
class LinearHead:
    """score = standardised features · weight + bias; ``weight`` is float64 [features]."""

    scaler: Scaler
    weight: Floats
    bias: float

    def score(self, features: Features) -> Floats:
        """Features [n, features] to uncalibrated log-odds float64 [n]."""
        return np.asarray(self.scaler.apply(features) @ self.weight + self.bias, np.float64)


def fit_linear(scaler: Scaler, standard: Features, fake: Flags, weights: Floats, c: float) -> LinearHead:
    """Logistic regression with a strong L2 penalty on standardised, clipped features.

    Args:
        scaler: what the head will standardise with.
        standard: [n, features], standardised by that scaler, or by that of the channel they come from.
        fake: [n].
        weights: [n], of rows; their sum together with ``c`` sets how much the data weigh against the penalty.
        c: inverse strength of the penalty.
    """
    model = LogisticRegression(C=c, max_iter=1000).fit(standard, fake, sample_weight=weights)
    return LinearHead(scaler, model.coef_[0].astype(np.float64), float(model.intercept_[0]))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibrated log-odds = ``slope`` · score + ``offset``."""

    slope: float
    offset: float

    def apply(self, scores: Floats) -> Floats:
        """Scores to calibrated log-odds, same shape."""
        return scores * self.slope + self.offset


def fit_calibration(scores: Floats, fake: Flags, weights: Floats, shrinkage: float) -> Calibration:
    """Platt scaling (1999), then both parameters times ``shrinkage``.

    Args:
        scores: [n], of utterances whose source was held out when they were scored.
        fake: [n].
        weights: [n].
        shrinkage: at most 1. Sources met in use differ more from the training sources than these do from
            each other, so log-odds that suit held-out sources are still too bold for them.
    """
    scale = float(scores.std())
    model = LogisticRegression(C=1e3).fit(scores[:, None] / scale, fake, sample_weight=weights)
    return Calibration(shrinkage * float(model.coef_[0, 0]) / scale, shrinkage * float(model.intercept_[0]))


def cell_weights(fake: Flags, sources: Sequence[str], power: float = 1.0) -> Floats:
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
