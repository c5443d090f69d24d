"""The figures agree with scikit-learn; intervals widen with fewer groups."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from training.metrics import auc, bootstrap, bootstrap_weights, equal_error_rate, measure

pytestmark = pytest.mark.training


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 400)
    scores = np.clip(np.round(0.4 + 0.2 * labels + 0.2 * random.standard_normal(400), 2), 0, 1)
    return labels, scores, [f"g{number // 4}" for number in range(400)]


def test_rank_figures_equal_sklearn_with_ties(sample):
    labels, scores, groups = sample
    figures = measure(labels, scores, groups)
    assert figures["auc"].value == pytest.approx(roc_auc_score(labels, scores))
    assert figures["ap"].value == pytest.approx(average_precision_score(labels, scores))
    false_positive, true_positive, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert figures["tpr_at_fpr_5"].value == pytest.approx(true_positive[false_positive <= 0.05].max())
    at = np.argmin(np.abs(false_positive - (1 - true_positive)))
    assert figures["eer"].value == pytest.approx((false_positive[at] + 1 - true_positive[at]) / 2, abs=0.02)


def test_probability_figures(sample):
    labels, scores, groups = sample
    figures = measure(labels, scores, groups)
    assert figures["accuracy"].value == pytest.approx(np.mean((scores >= 0.5) == labels))
    assert figures["brier"].value == pytest.approx(np.mean((scores - labels) ** 2))
    assert measure([0, 1] * 50, [0.5] * 100, groups[:100])["ece"].value == pytest.approx(0)
    assert measure([0, 0] * 50, [0.9] * 100, groups[:100])["ece"].value == pytest.approx(0.9)


def test_weights_equal_repetition(sample):
    """A weighted draw gives what the repeated rows would."""
    labels, scores, groups = sample
    weights = bootstrap_weights(groups, 5, seed=1)
    rows = np.repeat(np.arange(400), weights[2].astype(int))
    assert auc(labels[rows], scores[rows]) == pytest.approx(roc_auc_score(labels[rows], scores[rows]))
    figure = bootstrap(labels, scores, groups, lambda rows: auc(labels[rows], scores[rows]), resamples=300)
    direct = measure(labels, scores, groups)["auc"]
    assert (figure.low, figure.high) == pytest.approx((direct.low, direct.high))


def test_interval_holds_the_figure_and_depends_on_groups(sample):
    labels, scores, _ = sample
    many = measure(labels, scores, [str(number) for number in range(400)])["auc"]
    few = measure(labels, scores, [str(number // 40) for number in range(400)])["auc"]
    assert many.low < many.value < many.high
    assert few.n == many.n == 400
    assert (few.low, few.high) != (many.low, many.high)


def test_one_class_has_no_rank_figures():
    figures = measure([1, 1, 1], [0.9, 0.2, 0.8], ["a", "b", "c"])
    assert "auc" not in figures
    assert figures["accuracy"].value == pytest.approx(2 / 3)


def test_perfect_and_reversed_separation():
    assert equal_error_rate([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) == pytest.approx(0)
    assert equal_error_rate([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9]) == pytest.approx(1)
    assert auc([0, 1], [0.5, 0.5]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("labels", "scores", "groups"),
    [([], [], []), ([0, 1], [0.5], ["a"]), ([0, 2], [0.1, 0.2], ["a", "b"]), ([0, 1], [0.1, 1.2], ["a", "b"])],
)
def test_refuses_what_has_no_meaning(labels, scores, groups):
    with pytest.raises(ValueError, match="must"):
        measure(labels, scores, groups)
