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
from training.fusion.fitting import Table, class_weighted, fit_temperature
from training.fusion.report import held_out_report
from training.fusion.rows import LabelledRow
from training.fusion.statistics import STATISTICS
from training.metrics import auc, bootstrap

Floats = npt.NDArray[np.float64]
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
    rows: Sequence[LabelledRow], table: Table, folds: npt.NDArray[np.int64], linear: Floats, seed: int
) -> dict[str, Any]:
    """Figures of boosted heads beside the logistic one's, all on groups that they have not seen.

    Args:
        rows: what the table holds.
        table: as the logistic head sees it.
        folds: [rows], the fold of each.
        linear: held-out log-odds [rows] of the logistic head.
        seed: of the boosting and of the bootstrap.

    Returns:
        For ``scores`` and ``scores_and_statistics``: the held-out report, and the difference in AUC from the
        logistic head with its interval; ``wins`` says whether one of them is better beyond it.
    """
    extra = np.array([[row.statistics.get(name, np.nan) for name in STATISTICS] for row in rows])
    inputs = {"scores": table.values, "scores_and_statistics": np.concatenate([table.values, extra], axis=1)}
    report: dict[str, Any] = {}
    for name, values in inputs.items():
        log_odds = _held_out(values, table, folds, seed)
        calibrated = log_odds / fit_temperature(log_odds, table)
        probabilities = 0.5 * (1 + np.tanh(0.5 * calibrated))
        gain = bootstrap(table.labels, log_odds, table.groups, _difference(table.labels, log_odds, linear), seed=seed)
        figures = held_out_report(rows, probabilities, seed)
        report[name] = {"held_out": figures, "auc_gain": gain.as_dict()}
    report["wins"] = any(report[name]["auc_gain"]["low"] > 0 for name in inputs)
    return report


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


def _difference(labels: npt.NDArray[np.int64], one: Floats, other: Floats) -> Any:  # noqa: ANN401 - a function
    def gain(rows: npt.NDArray[np.int64]) -> float:
        return auc(labels[rows], one[rows]) - auc(labels[rows], other[rows])

    return gain
