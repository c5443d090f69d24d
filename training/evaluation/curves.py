"""The lines and tables behind the pictures, as plain arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
BINS = 10


def roc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Floats, Floats]:
    """False- and true-positive rate at every threshold, from (0, 0) to (1, 1).

    Args:
        labels: [rows], 1 = fake; both classes.
        scores: [rows], higher = more likely fake.
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    # Rows of equal score cross the threshold together.
    last = np.append(np.flatnonzero(np.diff(values[order])), values.size - 1)
    true_positive = np.cumsum(truth[order])[last] / truth.sum()
    false_positive = np.cumsum(1 - truth[order])[last] / (1 - truth).sum()
    return np.concatenate([[0.0], false_positive]), np.concatenate([[0.0], true_positive])


def calibration(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = BINS) -> tuple[Floats, Floats, Floats]:
    """Mean probability, share of fakes, and share of rows of every bin that is not empty."""
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    member = np.minimum((values * bins).astype(np.int64), bins - 1)
    rows = np.bincount(member, minlength=bins)
    used = rows > 0
    predicted = np.bincount(member, weights=values, minlength=bins)[used] / rows[used]
    observed = np.bincount(member, weights=truth, minlength=bins)[used] / rows[used]
    return predicted, observed, rows[used] / max(values.size, 1)


def confusion(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Counts [truth, called], 0 = real, 1 = fake, at a threshold."""
    truth = np.asarray(labels, dtype=np.int64)
    called = (np.asarray(probabilities, dtype=np.float64) >= threshold).astype(np.int64)
    return np.bincount(2 * truth + called, minlength=4).reshape(2, 2)
