"""Chooses a policy's thresholds for one head from scores of clips that the head has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from services.common.evidence import Branch
from services.fusion.heads import sigmoid
from services.fusion.policy import Thresholds, binomial_upper_bound

Floats = npt.NDArray[np.float64]
DIGITS = 1e6
"""Thresholds are rounded to the cautious side at this fraction."""
GAP = 0.02
"""Least width of the abstain band, in probability."""


@dataclass(frozen=True, slots=True)
class Target:
    """A policy to be calibrated: tolerated shares of real clips called DEEPFAKE and fakes called AUTHENTIC."""

    name: str
    description: str
    false_positive_rate: float
    miss_rate: float


TARGETS = (
    Target("balanced", "at most about 5 % of real clips called DEEPFAKE", 0.05, 0.10),
    Target("cautious", "at most about 1 % of real clips called DEEPFAKE", 0.01, 0.05),
)
AUTHENTIC_NEEDS: tuple[tuple[Branch, ...], ...] = (
    (Branch.FRAME, Branch.PATCH),
    (Branch.FRAME, Branch.TEMPORAL),
    (Branch.FRAME, Branch.AUDIO),
    (Branch.FRAME, Branch.SYNC),
)
"""AUTHENTIC needs the frame classifier and one witness more: nothing weak clears a clip alone."""
DEEPFAKE_NEEDS: tuple[tuple[Branch, ...], ...] = (
    (Branch.FRAME,),
    (Branch.TEMPORAL,),
    (Branch.AUDIO,),
    (Branch.SYNC,),
)
"""DEEPFAKE needs more than the patch gate."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Held-out calibrated log-odds [rows] with labels (1 = fake), groups and weights."""

    log_odds: Floats
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    weights: Floats


def choose_thresholds(scores: Scores, target: Target) -> Thresholds:
    """Thresholds for one target, as probabilities.

    Each group of real clips counts once, with its most suspicious clip, since clips of one group are not
    independent. The DEEPFAKE threshold is the conformal quantile of these (Vovk et al. 2005); where there are
    too few groups for the target rate, a Student prediction bound beyond the highest of them.

    Args:
        scores: of both classes.
        target: tolerated rates.

    Returns:
        The thresholds and the exact binomial bound that goes with them.
    """
    real = scores.labels == 0
    worst = np.array(sorted(_worst_of_groups(scores.log_odds[real], scores.groups[real])))
    deepfake = sigmoid(upper_limit(worst, target.false_positive_rate))
    missed = weighted_quantile(scores.log_odds[~real], scores.weights[~real], target.miss_rate)
    deepfake = max(math.ceil(deepfake * DIGITS) / DIGITS, 0.5)
    authentic = min(sigmoid(missed), 0.5, deepfake - GAP)
    flagged = int((_probabilities(worst) >= deepfake).sum())
    return Thresholds(
        deepfake=deepfake,
        authentic=max(math.floor(authentic * DIGITS) / DIGITS, 0.0),
        false_positive_bound=round(binomial_upper_bound(flagged, len(worst)), 6),
    )


def upper_limit(values: Floats, rate: float) -> float:
    """A limit that a new value exceeds with at most the given chance, from sorted earlier values [n]."""
    count = len(values)
    rank = math.ceil((count + 1) * (1 - rate))
    if rank <= count:
        return float(np.nextafter(values[rank - 1], np.inf))
    spread = values.std(ddof=1) * math.sqrt(1 + 1 / count)
    return float(max(values.mean() + student.ppf(1 - rate, count - 1) * spread, np.nextafter(values[-1], np.inf)))


def weighted_quantile(values: Floats, weights: Floats, share: float) -> float:
    """The value below which a share of the weight lies."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(reached, share)), len(values) - 1)])


def _worst_of_groups(log_odds: Floats, groups: Sequence[str] | npt.NDArray[np.str_]) -> list[float]:
    worst: dict[str, float] = {}
    for value, group in zip(log_odds, groups, strict=True):
        worst[str(group)] = max(worst.get(str(group), -math.inf), float(value))
    return list(worst.values())


def _probabilities(log_odds: Floats) -> Floats:
    return np.array([sigmoid(float(value)) for value in log_odds])
