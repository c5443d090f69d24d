"""Figures of merit of a detector, each with a bootstrap interval over groups.

Groups (originals, identities, sources), not rows, are drawn with replacement, since rows of one group are
not independent. A draw is a weight for every row, so all draws are computed at once by weighted sums over
the sorted scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 300
ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure with its 95 % interval and the number of rows behind it."""

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | int]:
        """The form that cards and summaries hold, rounded to four places."""
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "n": self.n,
        }

    def __str__(self) -> str:
        return f"{self.value:.3f} (95 % {self.low:.3f}–{self.high:.3f}, n={self.n})"


def measure(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: Sequence[str] | npt.NDArray[np.str_],
    *,
    probabilities: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Measure]:
    """All figures that are defined for these rows.

    Args:
        labels: [rows], 1 = fake, 0 = real.
        scores: [rows], higher = more likely fake; P(fake) in [0, 1] if ``probabilities``.
        groups: [rows], what the bootstrap draws.
        probabilities: whether accuracy (at 0.5), Brier score and expected calibration error make sense.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        By name. Rows of one class have only the probability figures.

    Raises:
        ValueError: no rows, unequal lengths, scores that are not finite, or probabilities outside [0, 1].
    """
    truth = np.asarray(labels, dtype=np.float64)
    values = np.asarray(scores, dtype=np.float64)
    _check(truth, values, len(groups), probabilities=probabilities)
    weights = np.vstack([np.ones((1, truth.size)), bootstrap_weights(groups, resamples, seed)])
    figures: dict[str, Floats] = {}
    if 0 < truth.sum() < truth.size:
        figures |= _rank_figures(truth, values, weights)
    if probabilities:
        figures |= _probability_figures(truth, values, weights)
    return {name: _interval(draws, truth.size) for name, draws in figures.items()}


def bootstrap(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: Sequence[str] | npt.NDArray[np.str_],
    statistic: Callable[[npt.NDArray[np.int64]], float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Measure:
    """Any other figure with its interval, from a function of row numbers; draws whole groups.

    Args:
        labels: [rows], only counted.
        scores: [rows], only checked for length.
        groups: [rows].
        statistic: maps row numbers (with repetitions) to the figure; may answer NaN.
        resamples: bootstrap draws.
        seed: of the draws.
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    _check(truth, values, len(groups), probabilities=False)
    rows = np.arange(truth.size)
    weights = bootstrap_weights(groups, resamples, seed).astype(np.int64)
    draws = [statistic(rows), *(statistic(np.repeat(rows, counts)) for counts in weights)]
    return _interval(np.array(draws, dtype=np.float64), truth.size)


def bootstrap_weights(groups: Sequence[str] | npt.NDArray[np.str_], resamples: int, seed: int) -> Floats:
    """How often each row occurs in each draw of groups with replacement: float64 [resamples, rows]."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    count = int(index.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.asarray(draws[:, index], dtype=np.float64)


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the receiver operating characteristic, ties counted half; NaN if one class is missing."""
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    return float(_area(*_class_weights(truth, values, np.ones((1, truth.size))))[0])


def equal_error_rate(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Where the miss and false-alarm rates meet; NaN if one class is missing."""
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    return float(_equal_error(*_rates(*_class_weights(truth, values, np.ones((1, truth.size)))))[0])


def _check(truth: Floats, values: Floats, groups: int, *, probabilities: bool) -> None:
    if truth.size == 0 or truth.ndim != 1 or truth.shape != values.shape or groups != truth.size:
        raise ValueError("labels, scores and groups must be equally long, and not empty")
    if not np.isin(truth, (0, 1)).all() or not np.isfinite(values).all():
        raise ValueError("labels must be 0 or 1 and scores finite")
    if probabilities and (values.min() < 0 or values.max() > 1):
        raise ValueError("probabilities must lie in [0, 1]")


def _interval(draws: Floats, rows: int) -> Measure:
    """The first draw is the figure itself; draws that lack a class are left out of its interval."""
    low, high = np.nanpercentile(draws, (2.5, 97.5)) if np.isfinite(draws).any() else (np.nan, np.nan)
    return Measure(float(draws[0]), float(low), float(high), rows)


def _class_weights(truth: Floats, values: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of real and of fake rows at each distinct score, highest first: two [draws, scores]."""
    order = np.argsort(-values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.inf))
    ordered = weights[:, order]
    fake = np.add.reduceat(ordered * truth[order], starts, axis=1)
    real = np.add.reduceat(ordered * (1 - truth[order]), starts, axis=1)
    return real, fake


def _rates(real: Floats, fake: Floats) -> tuple[Floats, Floats]:
    """False- and true-positive rate as the threshold falls, from (0, 0): two [draws, scores + 1]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        false_positive = np.cumsum(real, axis=1) / real.sum(axis=1, keepdims=True)
        true_positive = np.cumsum(fake, axis=1) / fake.sum(axis=1, keepdims=True)
    return np.pad(false_positive, ((0, 0), (1, 0))), np.pad(true_positive, ((0, 0), (1, 0)))


def _area(real: Floats, fake: Floats) -> Floats:
    false_positive, true_positive = _rates(real, fake)
    return np.asarray(np.trapezoid(true_positive, false_positive, axis=1))


def _equal_error(false_positive: Floats, true_positive: Floats) -> Floats:
    """Linear interpolation between the two thresholds around the crossing."""
    gap = false_positive - (1 - true_positive)
    after = np.argmax(gap >= 0, axis=1).clip(1)[:, None]
    here, before = (np.take_along_axis(gap, at, axis=1)[:, 0] for at in (after, after - 1))
    share = np.divide(-before, here - before, out=np.ones_like(here), where=here > before)
    low, high = (np.take_along_axis(false_positive, at, axis=1)[:, 0] for at in (after - 1, after))
    rate = low + share * (high - low)
    return np.asarray(np.where(np.isfinite(gap[:, -1]), rate, np.nan))


def _sensitivity(false_positive: Floats, true_positive: Floats, limit: float) -> Floats:
    """Highest true-positive rate of a threshold whose false-positive rate is within the limit."""
    best = np.where(false_positive <= limit + 1e-12, true_positive, 0).max(axis=1)
    return np.asarray(np.where(np.isfinite(false_positive[:, -1] + true_positive[:, -1]), best, np.nan))


def _average_precision(real: Floats, fake: Floats) -> Floats:
    """Precision at each threshold, weighted by the recall it adds."""
    found, flagged = np.cumsum(fake, axis=1), np.cumsum(fake + real, axis=1)
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((precision * fake).sum(axis=1) / fake.sum(axis=1))


def _rank_figures(truth: Floats, values: Floats, weights: Floats) -> dict[str, Floats]:
    real, fake = _class_weights(truth, values, weights)
    false_positive, true_positive = _rates(real, fake)
    return {
        "auc": _area(real, fake),
        "eer": _equal_error(false_positive, true_positive),
        "tpr_at_fpr_1": _sensitivity(false_positive, true_positive, 0.01),
        "tpr_at_fpr_5": _sensitivity(false_positive, true_positive, 0.05),
        "ap": _average_precision(real, fake),
    }


def _probability_figures(truth: Floats, values: Floats, weights: Floats) -> dict[str, Floats]:
    total = weights.sum(axis=1)
    bins = np.minimum((values * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    member = np.eye(ECE_BINS)[bins]
    excess = np.abs((weights * (values - truth)) @ member).sum(axis=1)
    return {
        "accuracy": weights @ ((values >= 0.5) == (truth == 1)) / total,
        "brier": weights @ (values - truth) ** 2 / total,
        "ece": excess / total,
    }
