"""Figures from rows: what is reported under which source, and strict JSON even where little can be said."""

import json
import math

import numpy as np
import pytest

from training.evaluation.curves import calibration, confusion, roc
from training.evaluation.rows import Row
from training.evaluation.summary import Measured, as_json, summarise, within_sources

pytestmark = pytest.mark.training


def row(label: int, score: float | None, branch: str = "audio", **more: object) -> Row:
    number = f"{label}{score}{more}"
    given = {"name": number, "collection": "set", "group": number, "scores": {} if score is None else {branch: score}}
    return Row(label=label, **(given | more))  # type: ignore[arg-type]


def source(name: str, real: list[float], fake: list[float]) -> list[Row]:
    rows = [row(0, score, source=name, group=f"{name}{index}") for index, score in enumerate(real)]
    return rows + [row(1, score, source=name, group=f"{name}{index}") for index, score in enumerate(fake)]


def test_every_branch_is_there_and_empty_without_rows() -> None:
    assert json.loads(as_json(summarise(Measured()))) == {
        branch: {} for branch in ("frame", "patch", "temporal", "audio", "sync", "fused")
    }


def test_one_class_has_no_rank_figures_and_nothing_that_is_not_a_number() -> None:
    table = json.loads(as_json(summarise(Measured(stills=[row(0, 0.3, "frame"), row(0, 0.2, "frame")]))))
    assert table["frame"]["all"].keys() == {"accuracy", "brier", "ece"}
    assert all(math.isfinite(number) for figure in table["frame"]["all"].values() for number in figure.values())


def test_speech_sources_count_from_five_of_each_class() -> None:
    rows = source("plenty", [0.1] * 5, [0.9] * 5) + source("few", [0.1] * 4, [0.9] * 6)
    table = summarise(Measured(speech=rows))["audio"]
    assert "plenty" in table
    assert "few" not in table
    assert table["all"]["auc"].n == 20
    assert table["set"]["auc"].n == 20


def test_the_mean_within_sources_does_not_see_differences_between_them() -> None:
    # Inside both sources scores mean nothing, but the source with more fakes is called fake.
    level = [0.1, 0.2, 0.3, 0.4, 0.5]
    high = [score + 0.5 for score in level]
    rows = source("calm", level * 2, level) + source("loud", high, high * 2)
    within = within_sources(rows, "audio")
    assert within["auc"].value == pytest.approx(0.5)
    assert within["auc"].n == 2
    assert summarise(Measured(speech=rows))["audio"]["all"]["auc"].value > 0.6


def test_clip_kinds_and_methods_are_measured_against_all_real_clips() -> None:
    reals = [row(0, 0.1 + index / 100, "fused", kind="real", name=f"r{index}") for index in range(6)]
    fakes = [row(1, 0.9, "fused", kind="generated", method="lips", name=f"f{index}") for index in range(5)]
    rare = [row(1, 0.05, "fused", kind="generated", method="rare", name="rare")]
    dubs = [row(1, 0.0, "fused", kind="dubbed", traits={"forged_here": 1.0}, name=f"d{index}") for index in range(6)]
    table = summarise(Measured(clips=[*reals, *fakes, *rare, *dubs]))["fused"]
    assert table["lips"]["auc"].value == 1
    assert table["lips"]["auc"].n == 11
    assert "rare" not in table
    assert table["generated"]["auc"].n == 12
    assert table["dubbed"]["auc"].value == 0
    assert table["set"]["auc"].n == 12, "forgeries made here are no clips of the set"
    assert table["all"]["auc"].n == 18


def test_unscored_rows_and_other_conditions_stay_out_of_clean_figures() -> None:
    rows = [*source("one", [0.1] * 6, [0.9] * 6), row(1, None, source="one")]
    degraded = [row(label, 0.5, source="one", condition="mp3_16k") for label in (0, 1)]
    table = summarise(Measured(speech=[*rows, *degraded]))["audio"]
    assert table["all"]["auc"].n == 12
    assert table["degraded_mp3_16k"]["auc"].value == 0.5


def test_single_pictures_are_what_all_means_for_the_frame_classifier() -> None:
    stills = [row(0, 0.2, "frame"), row(1, 0.8, "frame")]
    clips = [row(0, 0.9, "frame", kind="real", collection="clips"), row(1, 0.1, "frame", kind="generated")]
    table = summarise(Measured(stills=stills, clips=clips))["frame"]
    assert table["all"]["auc"].value == 1
    assert table["generated"]["auc"].value == 0


def test_roc_moves_through_ties_at_once() -> None:
    false_positive, true_positive = roc([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.9])
    assert false_positive.tolist() == [0, 0, 1]
    assert true_positive.tolist() == [0, 0.5, 1]


def test_calibration_bins_hold_shares_and_certainty_belongs_to_the_last() -> None:
    predicted, observed, weight = calibration([0, 1, 1, 1], [0.05, 0.95, 1.0, 1.0])
    assert predicted == pytest.approx([0.05, np.mean([0.95, 1, 1])])
    assert observed.tolist() == [0, 1]
    assert weight.tolist() == [0.25, 0.75]


def test_confusion_counts_truth_by_call() -> None:
    assert confusion([0, 0, 1, 1, 1], [0.1, 0.7, 0.5, 0.2, 0.9]).tolist() == [[1, 1], [1, 2]]


def test_two_groups_do_not_make_an_interval_of_no_width() -> None:
    random = np.random.default_rng(0)
    rows = [
        row(label, float(np.clip(random.normal(0.4 + 0.2 * label, 0.2), 0, 1)), "frame", group=f"g{label}")
        for label in (0, 1)
        for _ in range(40)
    ]
    auc = summarise(Measured(stills=rows))["frame"]["all"]["auc"]
    assert auc.low < auc.value < auc.high


def test_calibration_at_even_odds_does_not_depend_on_how_many_fakes_a_set_holds() -> None:
    # Half of what scores 0.5 is fake at even odds: well calibrated, however many fakes are counted.
    few = [
        row(label, 0.5, "fused", kind="generated" if label else "real", name=f"{n}{label}")
        for label, times in ((0, 10), (1, 40))
        for n in range(times)
    ]
    table = summarise(Measured(clips=few))["fused"]["all"]
    assert table["ece"].value == pytest.approx(0.3)
    assert table["ece_balanced"].value == pytest.approx(0.0, abs=1e-9)
