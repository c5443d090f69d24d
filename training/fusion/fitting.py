"""Fits one head: standardised, class-weighted logistic regression with signs that make sense, and temperature.

A branch's probability must not speak against itself: where the fit gives such a feature a negative weight,
the feature is left out and the rest fitted again. Counts (faces, patches) describe how a data set was filmed
and cut, not whether a clip is forged, so they are kept in the vector with weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from services.common.evidence import Branch
from services.fusion.features import BRANCH_FEATURES, is_probability
from services.fusion.heads import TRANSFORMS, transform_of

Floats = npt.NDArray[np.float64]
MIN_SCALE = 1e-3
TEMPERATURE_BOUNDS = (0.5, 4.0)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows to fit on: ``values`` float64 [rows, features] after transforms; ``labels`` [rows] 1 = fake.

    ``weights`` [rows] say how much each row counts within its class, ``odds`` how much all forgeries weigh
    against all real rows; ``groups`` [rows] what a fold must not divide.
    """

    names: tuple[str, ...]
    values: Floats
    labels: npt.NDArray[np.int64]
    weights: Floats
    groups: npt.NDArray[np.str_]
    odds: float = 1.0

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Table:
        """The table of some rows."""
        return Table(
            self.names,
            self.values[chosen],
            self.labels[chosen],
            self.weights[chosen],
            self.groups[chosen],
            self.odds,
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted head before temperature: standardisation, weights and constant term, one entry a feature."""

    mean: Floats
    scale: Floats
    coefficients: Floats
    intercept: float

    def log_odds(self, values: Floats) -> Floats:
        """Log-odds [rows] of transformed features [rows, features]."""
        return np.asarray((values - self.mean) / self.scale @ self.coefficients + self.intercept)


def feature_names(branches: frozenset[Branch]) -> tuple[str, ...]:
    """Features of a set of branches in the fixed order."""
    return tuple(name for branch, names in BRANCH_FEATURES.items() if branch in branches for name in names)


def transformed(features: Sequence[Mapping[str, float]], names: Sequence[str]) -> Floats:
    """Features as heads see them before standardisation: float64 [rows, features]."""
    return np.array([[TRANSFORMS[transform_of(name)](row[name]) for name in names] for row in features])


def fit_head(table: Table, strength: float) -> Fit:
    """Fit one head.

    Args:
        table: rows of both classes.
        strength: inverse of the L2 penalty (sklearn's C); small is strong.

    Returns:
        Weights of probability features are 0 or more, those of counts 0.
    """
    balanced = class_weighted(table)
    mean = np.average(table.values, axis=0, weights=balanced)
    scale = np.sqrt(np.average((table.values - mean) ** 2, axis=0, weights=balanced))
    scale = np.maximum(scale, MIN_SCALE)
    standard = (table.values - mean) / scale
    kept = [at for at, name in enumerate(table.names) if is_probability(name)]
    while True:
        model = LogisticRegression(C=strength, max_iter=2000)
        model.fit(standard[:, kept], table.labels, sample_weight=balanced)
        weights = model.coef_[0]
        agreeing = [at for at, weight in zip(kept, weights, strict=True) if weight >= 0]
        if len(agreeing) == len(kept):
            break
        # One at a time, the worst first: features of one branch hide each other.
        worst = kept[int(np.argmin(weights))]
        kept = [at for at in kept if at != worst] or [worst]
        if kept == [worst]:
            return Fit(mean, scale, np.zeros(len(table.names)), 0.0)
    coefficients = np.zeros(len(table.names))
    coefficients[kept] = weights
    return Fit(mean, scale, coefficients, float(model.intercept_[0]))


def held_out_log_odds(table: Table, folds: npt.NDArray[np.int64], strength: float) -> Floats:
    """Log-odds [rows] of each row by a head that has not seen its fold.

    Args:
        table: all rows.
        folds: fold of each row; every fold's complement must hold both classes.
        strength: as for ``fit_head``.
    """
    result = np.zeros(len(table.labels))
    for fold in np.unique(folds):
        chosen = folds == fold
        result[chosen] = fit_head(table.rows(~chosen), strength).log_odds(table.values[chosen])
    return result


def fit_temperature(log_odds: Floats, table: Table) -> float:
    """The temperature with the least class-weighted Brier score on held-out log-odds."""
    weights = class_weighted(table)

    def brier(temperature: float) -> float:
        probability = 0.5 * (1 + np.tanh(0.5 * log_odds / temperature))
        return float(np.average((probability - table.labels) ** 2, weights=weights))

    found = minimize_scalar(brier, bounds=TEMPERATURE_BOUNDS, method="bounded")
    return float(found.x)


def class_weighted(table: Table) -> Floats:
    """Row weights scaled so that the classes weigh as the table's odds say and the mean weight is 1."""
    weights = table.weights.astype(np.float64).copy()
    for label, share in ((0, 1 / (1 + table.odds)), (1, table.odds / (1 + table.odds))):
        chosen = table.labels == label
        weights[chosen] *= len(weights) * share / weights[chosen].sum()
    return weights
