"""How much each network over crops counts: one logistic regression on held-out logits, no weight below nought.

The gate's share of a crop splits its logits between the two sums of the ensemble, so both sums are fitted at once, by
what they say together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import block_diag
from scipy.optimize import minimize
from scipy.special import expit

from services.visual.ensemble import WeightedSum
from training.calibration import cell_weights
from training.data import folds

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
FAMILIAR_STRENGTH, UNFAMILIAR_STRENGTH = 0.2, 0.01
"""Inverse L2 penalties on the weights of standardised logits: in the familiar sum on each weight, in the other on how
far it is from their mean. That one is fitted on a few hundred crops of unseen sources, and weights that follow them
closely do worse on the next source than weights that all members share."""


@dataclass(frozen=True, slots=True)
class Weighing:
    """The two sums of the ensemble over the same members."""

    familiar: WeightedSum
    unfamiliar: WeightedSum

    def log_odds(self, logits: Floats, shares: Floats, names: Sequence[str]) -> Floats:
        """Calibrated log-odds [rows] of logits [rows, members] and the gate's shares [rows]."""
        sums = [
            logits @ np.array([own.weights[name] for name in names]) + own.bias
            for own in (self.familiar, self.unfamiliar)
        ]
        return np.asarray(shares * sums[0] + (1 - shares) * sums[1])


@dataclass(frozen=True, slots=True)
class Judged:
    """Held-out crops as the members judge them.

    ``logits`` [rows, members], ``shares`` [rows] (the gate's), ``labels`` [rows] (1 = fake), ``cells`` [rows] (the set
    of each), ``sources`` [rows] (what weights and the rows they are judged on must not share).
    """

    logits: Floats
    shares: Floats
    labels: Labels
    cells: npt.NDArray[np.str_]
    sources: npt.NDArray[np.str_]

    def of(self, rows: npt.NDArray[np.bool_]) -> Judged:
        """Some of the rows."""
        return Judged(self.logits[rows], self.shares[rows], self.labels[rows], self.cells[rows], self.sources[rows])


def weigh(judged: Judged, names: Sequence[str]) -> Weighing:
    """Fit both sums; each set weighs the same within its class.

    Args:
        judged: the rows to fit on.
        names: of the members.
    """
    balance = cell_weights(judged.labels, judged.cells.tolist())
    logits = judged.logits
    scale = np.sqrt(np.average((logits - np.average(logits, axis=0, weights=balance)) ** 2, axis=0, weights=balance))
    count = len(names)
    values = _split(logits / scale, judged.shares)
    apart = np.eye(count) - 1 / count
    penalty = block_diag(np.eye(count) / FAMILIAR_STRENGTH, apart / UNFAMILIAR_STRENGTH, np.zeros((2, 2)))
    fitted = _non_negative_logistic(values, judged.labels, balance, penalty)
    weights = fitted[:-2].reshape(2, count) / scale
    stretched = np.column_stack([values[:, :-2] @ fitted[:-2], values[:, -2:]])
    slope, *biases = _non_negative_logistic(stretched, judged.labels, balance, np.zeros((3, 3)))
    sums = [
        WeightedSum(dict(zip(names, (own * slope).tolist(), strict=True)), float(bias))
        for own, bias in zip(weights, biases, strict=True)
    ]
    return Weighing(*sums)


def _split(values: Floats, shares: Floats) -> Floats:
    """Columns of the familiar sum, of the unfamiliar sum, and their constants: [rows, 2 members + 2]."""
    own, other = shares[:, None], 1 - shares[:, None]
    return np.hstack([own * values, other * values, own, other])


def _non_negative_logistic(values: Floats, labels: Labels, importance: Floats, penalty: Floats) -> Floats:
    """Coefficients of a logistic regression with a quadratic penalty; all but the last two, constants, at least 0."""

    def loss(coefficients: Floats) -> tuple[float, Floats]:
        log_odds, pull = values @ coefficients, penalty @ coefficients
        surprise = np.logaddexp(0.0, log_odds) - labels * log_odds
        gradient = values.T @ (importance * (expit(log_odds) - labels)) + pull
        return float(importance @ surprise + coefficients @ pull / 2), gradient

    free = [(None, None)] * 2
    bounds = [*[(0.0, None)] * (values.shape[1] - len(free)), *free]
    found = minimize(loss, np.zeros(values.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x, np.float64)


def cross_fitted(judged: Judged, names: Sequence[str], *, count: int = 5) -> Floats:
    """Probability [rows] of every row by weights that its own source had no part in."""
    fold = folds(judged.sources.tolist(), count)
    probabilities = np.zeros(len(judged.labels))
    for number in np.unique(fold):
        own = fold == number
        fitted = weigh(judged.of(~own), names)
        probabilities[own] = expit(fitted.log_odds(judged.logits[own], judged.shares[own], names))
    return probabilities
