"""Platt scaling: a straight line from a network's logit to calibrated log-odds (Platt 1999)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from training.data import folds

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """Calibrated log-odds are ``scale * logit + bias``."""

    scale: float
    bias: float

    def log_odds(self, logits: npt.ArrayLike) -> Floats:
        """Calibrated natural log-odds of raw logits, float64 of the same shape."""
        return np.asarray(self.scale * np.asarray(logits, dtype=np.float64) + self.bias)


def fit_line(logits: npt.ArrayLike, labels: npt.ArrayLike, cells: Sequence[str]) -> Line:
    """Fit a line by weighted maximum likelihood, both classes and every cell within a class weighing the same.

    Args:
        logits: [rows], raw.
        labels: [rows], 1 = fake.
        cells: [rows], for instance the set a row comes from.
    """
    values = np.asarray(logits, dtype=np.float64)[:, None]
    model = LogisticRegression(C=1e3).fit(values, labels, sample_weight=cell_weights(labels, cells))
    return Line(float(model.coef_[0, 0]), float(model.intercept_[0]))


def cell_weights(labels: npt.ArrayLike, cells: Sequence[str]) -> Floats:
    """Weight of every row, mean 1: both labels the same, and every cell within a label the same."""
    truth = np.asarray(labels)
    names = np.asarray(cells)
    weights = np.zeros(truth.size)
    for label in np.unique(truth):
        present = np.unique(names[truth == label])
        for cell in present:
            rows = (truth == label) & (names == cell)
            weights[rows] = 1.0 / (rows.sum() * present.size)
    return weights * truth.size / weights.sum()


def cross_fitted(
    logits: npt.ArrayLike, labels: npt.ArrayLike, cells: Sequence[str], groups: Sequence[str], *, count: int = 5
) -> Floats:
    """Probability of every row by a line that its own group had no part in: float64 [rows] in [0, 1]."""
    values, truth, names = np.asarray(logits, dtype=np.float64), np.asarray(labels), np.asarray(cells)
    fold = folds(groups, count)
    probabilities = np.zeros(values.size)
    for number in np.unique(fold):
        rest = fold != number
        line = fit_line(values[rest], truth[rest], names[rest].tolist())
        probabilities[~rest] = expit(line.log_odds(values[~rest]))
    return probabilities
