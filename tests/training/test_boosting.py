"""The boosted head is measured on groups it has not seen, and wins only where it is better beyond doubt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("xgboost")

from services.common.evidence import Behaviour, Branch, FaceTrack, VisualEvidence, VoiceSequence
from services.fusion.pipeline import FusionInput
from tests.training.test_fusion import made_rows, report
from training.data import folds
from training.fusion.boosting import boosted_report
from training.fusion.rows import rows_for, table_for
from training.fusion.statistics import COEFFICIENTS, STATISTICS, statistics_of, with_behaviour

pytestmark = pytest.mark.training


def test_where_a_line_is_right_trees_do_not_win() -> None:
    branches = frozenset({Branch.FRAME, Branch.SYNC})
    rows = rows_for(made_rows(60), branches)
    table = table_for(rows, branches)
    dealt = folds(table.groups, 5, 0)
    found = boosted_report(rows, table, dealt, 0.2, seed=0)
    assert found["wins"] is False
    assert found["scores"]["held_out"]["all"]["auc"]["value"] > 0.7
    assert found == boosted_report(rows, table, dealt, 0.2, seed=0)


@pytest.mark.parametrize("of_source", [False, True])
def test_trees_win_by_a_statistic_only_if_it_carries_over_to_other_sources(*, of_source: bool) -> None:
    """A statistic that says what is forged wins; one that says it of known sources only does not."""
    branches = frozenset({Branch.FRAME, Branch.SYNC})
    rows = []
    for at, row in enumerate(rows_for(made_rows(200), branches)):
        source = at // 3 % 10
        value = float((row.fake + source) % 2 if of_source else row.fake)
        rows.append(replace(row, source=f"source{source}", statistics={"mfcc_mean_0": value, "mfcc_mean_1": source}))
    table = table_for(rows, branches)
    found = boosted_report(rows, table, folds(table.groups, 5, 0), 0.2, seed=0)
    assert found["wins"] is not of_source


def test_statistics_say_what_is_there_and_nan_what_is_not() -> None:
    voice = VoiceSequence(0, 10_000, np.full((50, 40), 2.0, np.float32))
    found = statistics_of(FusionInput((report(Branch.FRAME, 0.4, 3),), (), voice))
    assert tuple(found) == STATISTICS
    assert found["mfcc_mean_0"] == pytest.approx(2.0 * np.sqrt(40))
    assert [found[f"mfcc_deviation_{at}"] for at in range(COEFFICIENTS)] == pytest.approx([0.0] * COEFFICIENTS)
    assert np.isnan(found["behaviour_landmark_jitter"])


def test_behaviour_travels_with_the_frame_branch() -> None:
    behaviour = Behaviour(blinks_per_minute=20.0, landmark_jitter=0.01)
    track = FaceTrack(1, 0, 1, (0.0, 0.0, 1.0, 1.0), 100.0, 4, behaviour)
    evidence = VisualEvidence((report(Branch.FRAME, 0.4, 3), report(Branch.PATCH, 0.4, 3)), tracks=(track,))
    found = statistics_of(FusionInput(with_behaviour(evidence).reports))
    assert found["behaviour_blinks_per_minute"] == 20.0
    assert np.isnan(found["behaviour_eye_aspect_mean"])
