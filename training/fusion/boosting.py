"""A gradient-boosted head (Chen and Guestrin 2016) on the rows of a logistic one, to see which generalises better.

It may also read how faces behave and voices sound. It is measured on the same held-out groups, and would be
served only where it is better there beyond doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from services.fusion.features import is_probability
from training.data import folds
from training.fusion.crossfit import FOLDS
from training.fusion.fitting import Table, class_weighted, fit_temperature, held_out_log_odds
from training.fusion.report import held_out_report
from training.fusion.rows import LabelledRow
from training.fusion.statistics import STATISTICS
from training.metrics import Measure, auc, bootstrap

Floats = npt.NDArray[np.float64]
CLASSES = 2
ROUNDS = 120
PARAMETERS = {
    "objective": "binary:logistic",
    "max_depth": 2,
    "eta": 0.06,
    "subsample": 0.8,
    "colsample_bytree": 0.7,
    "lambda": 10.0,
    "min_child_weight": 8.0,
    "nthread": 1,
}


def boosted_report(
    rows: Sequence[LabelledRow], table: Table, dealt: npt.NDArray[np.int64], strength: float, seed: int
) -> dict[str, Any]:
    """Figures of boosted heads beside the logistic one's, all on rows that they have not seen.

    Statistics of faces and voices tell sources apart, so trees must be better on whole sources held out too.

    Args:
        rows: what the table holds.
        table: as the logistic head sees it.
        dealt: [rows], the fold of each by group.
        strength: inverse penalty of the logistic head.
        seed: of the boosting, of the folds of sources and of the bootstrap.

    Returns:
        For ``scores`` and ``scores_and_statistics``: the held-out report, and the difference in AUC from the
        logistic head with its interval, on held-out groups (``auc_gain``) and sources (``auc_gain_on_sources``);
        ``wins`` says whether one of them is better beyond both intervals.
    """
    extra = np.array([[row.statistics.get(name, np.nan) for name in STATISTICS] for row in rows])
    inputs = {"scores": table.values, "scores_and_statistics": np.concatenate([table.values, extra], axis=1)}
    splits = {"auc_gain": dealt, "auc_gain_on_sources": source_folds(rows, dealt, seed)}
    linear = {name: held_out_log_odds(table, fold, strength) for name, fold in splits.items()}
    report: dict[str, Any] = {}
    for name, values in inputs.items():
        trees = {split: _held_out(values, table, fold, seed) for split, fold in splits.items()}
        calibrated = trees["auc_gain"] / fit_temperature(trees["auc_gain"], table)
        figures = held_out_report(rows, 0.5 * (1 + np.tanh(0.5 * calibrated)), seed)
        gains = {split: _gain(table, trees[split], linear[split], seed).as_dict() for split in splits}
        report[name] = {"held_out": figures, **gains}
    report["wins"] = any(all(report[name][split]["low"] > 0 for split in splits) for name in inputs)
    return report


def source_folds(rows: Sequence[LabelledRow], otherwise: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Fold of each row [rows] by whole sources; ``otherwise`` where too few sources hold both classes."""
    dealt = folds([row.source for row in rows], FOLDS, seed)
    labels = np.array([row.fake for row in rows])
    whole = all(len(np.unique(labels[dealt != fold])) == CLASSES for fold in np.unique(dealt))
    return dealt if whole else otherwise


def _gain(table: Table, one: Floats, other: Floats, seed: int) -> Measure:
    """By how much the AUC of one is above that of the other."""

    def difference(rows: npt.NDArray[np.int64]) -> float:
        return auc(table.labels[rows], one[rows]) - auc(table.labels[rows], other[rows])

    return bootstrap(table.labels, one, table.groups, difference, seed=seed)


def _held_out(values: Floats, table: Table, folds: npt.NDArray[np.int64], seed: int) -> Floats:
    """Log-odds [rows] of each row by trees that have not seen its fold."""
    weights = class_weighted(table)
    constraints = [int(is_probability(name)) for name in table.names]
    constraints += [0] * (values.shape[1] - len(constraints))
    parameters = {**PARAMETERS, "seed": seed, "monotone_constraints": str(tuple(constraints))}
    result = np.zeros(len(table.labels))
    for fold in np.unique(folds):
        chosen = folds == fold
        learnt = xgboost.DMatrix(values[~chosen], table.labels[~chosen], weight=weights[~chosen])
        trees = xgboost.train(parameters, learnt, ROUNDS)
        result[chosen] = trees.predict(xgboost.DMatrix(values[chosen]), output_margin=True)
    return result
