"""How much each network over crops counts: logistic regression on held-out logits, no weight below nought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from services.visual.scoring import FRAME_MODEL
from training.calibration import cell_weights
from training.data import folds
from training.metrics import auc

Floats = npt.NDArray[np.float64]
STRENGTH = 0.05
"""Inverse L2 penalty on the weights of standardised logits: members must earn their part."""
SHRINKAGES = (1.0, 0.75, 0.5, 0.25, 0.0)
MOST_LOST = 0.003
"""AUC that companions may cost on any one set: they are there for what the frame classifier is weak at, and may not
harm where it is strong."""
LEAST_SHARE = 0.05
"""Part of all weight on standardised logits below which a member is not worth its cost."""
LEAST_GAIN = 0.005
"""AUC that a member must add on some set, by weights that have not seen the group, to be worth its cost."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """Weight of each member's logit, and the constant term."""

    weights: dict[str, float]
    bias: float

    def log_odds(self, logits: Floats, names: Sequence[str]) -> Floats:
        """Calibrated log-odds [rows] of logits [rows, members]; members without a weight are left out."""
        return np.asarray(logits @ np.array([self.weights.get(name, 0.0) for name in names]) + self.bias)


def weigh(logits: Floats, labels: npt.NDArray[np.int64], cells: Sequence[str], names: Sequence[str]) -> Weighing:
    """Fit the weights; members with too small a share leave one by one, the frame classifier always stays.

    The companions' weights are then shrunk as far as MOST_LOST asks.

    Args:
        logits: [rows, members].
        labels: [rows], 1 = fake.
        cells: [rows], the set of each row; every set weighs the same within its class.
        names: of the members.
    """
    balance = cell_weights(labels, cells)
    scale = np.sqrt(np.average((logits - np.average(logits, axis=0, weights=balance)) ** 2, axis=0, weights=balance))
    kept = list(range(len(names)))
    while True:
        standard = logits[:, kept] / scale[kept]
        model = LogisticRegression(C=STRENGTH * len(kept), max_iter=1000)
        model.fit(standard, labels, sample_weight=balance)
        shares = model.coef_[0] / np.abs(model.coef_[0]).sum()
        others = [(share, at) for share, at in zip(shares, kept, strict=True) if names[at] != FRAME_MODEL]
        share, worst = min(others, default=(1.0, -1))
        if share >= LEAST_SHARE:
            break
        kept.remove(worst)
    values = model.coef_[0] / scale[kept]
    chosen = [names[at] for at in kept]
    own = np.array([name == FRAME_MODEL for name in chosen])
    alone = _areas(logits[:, kept] @ np.where(own, values, 0.0), labels, cells)
    for shrinkage in SHRINKAGES:
        shrunk = np.where(own, values, values * shrinkage)
        areas = _areas(logits[:, kept] @ shrunk, labels, cells)
        if all(areas[cell] >= alone[cell] - MOST_LOST for cell in alone):
            break
    return _calibrated(logits[:, kept] @ shrunk, labels, balance, chosen, shrunk)


def earning(
    logits: Floats, labels: npt.NDArray[np.int64], cells: Sequence[str], names: Sequence[str], groups: Sequence[str]
) -> tuple[str, ...]:
    """The members that are worth their cost: one by one, the one that adds least leaves.

    Args:
        logits: [rows, members].
        labels: [rows], 1 = fake.
        cells: [rows], the set of each row.
        names: of the members.
        groups: [rows], what weights and the rows they are judged on must not share.
    """
    kept = list(weigh(logits, labels, cells, names).weights)

    def areas(members: Sequence[str]) -> dict[str, float]:
        columns = logits[:, [names.index(name) for name in members]]
        return _areas(cross_fitted(columns, labels, cells, members, groups), labels, cells)

    while len(kept) > 1:
        together, gains = areas(kept), {}
        for name in kept:
            if name != FRAME_MODEL:
                without = areas([other for other in kept if other != name])
                gains[name] = max(together[cell] - without[cell] for cell in together)
        least = min(gains, key=lambda name: gains[name])
        if gains[least] >= LEAST_GAIN:
            break
        kept.remove(least)
    return tuple(kept)


def _areas(scores: Floats, labels: npt.NDArray[np.int64], cells: Sequence[str]) -> dict[str, float]:
    """AUC on every set."""
    kinds = np.asarray(cells)
    return {cell: auc(labels[kinds == cell], scores[kinds == cell]) for cell in dict.fromkeys(cells)}


def _calibrated(
    sums: Floats, labels: npt.NDArray[np.int64], balance: Floats, names: Sequence[str], values: Floats
) -> Weighing:
    """The weights, stretched so that their sum is calibrated again after the penalty shrank it."""
    line = LogisticRegression(C=1e3).fit(sums[:, None], labels, sample_weight=balance)
    scale, bias = float(line.coef_[0, 0]), float(line.intercept_[0])
    return Weighing({name: float(value) * scale for name, value in zip(names, values, strict=True)}, bias)


def cross_fitted(
    logits: Floats,
    labels: npt.NDArray[np.int64],
    cells: Sequence[str],
    names: Sequence[str],
    groups: Sequence[str],
    *,
    count: int = 5,
) -> Floats:
    """Probability [rows] of every row by weights that its own group had no part in."""
    fold, kinds = folds(groups, count), np.asarray(cells)
    probabilities = np.zeros(len(labels))
    for number in np.unique(fold):
        rest = fold != number
        fitted = weigh(logits[rest], labels[rest], kinds[rest].tolist(), names)
        probabilities[~rest] = expit(fitted.log_odds(logits[~rest], names))
    return probabilities
