"""The boosted head is measured on groups it has not seen, and wins only where it is better beyond doubt."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("xgboost")

from services.common.evidence import Behaviour, Branch, FaceTrack, VisualEvidence, VoiceSequence
from services.fusion.pipeline import FusionInput
from tests.training.test_fusion import made_rows, report
from training.data import folds
from training.fusion.boosting import boosted_report
from training.fusion.fitting import held_out_log_odds
from training.fusion.rows import rows_for, table_for
from training.fusion.statistics import COEFFICIENTS, STATISTICS, statistics_of, with_behaviour

pytestmark = pytest.mark.training


def test_where_a_line_is_right_trees_do_not_win() -> None:
    branches = frozenset({Branch.FRAME, Branch.SYNC})
    rows = rows_for(made_rows(60), branches)
    table = table_for(rows, branches)
    dealt = folds(table.groups, 5, 0)
    linear = held_out_log_odds(table, dealt, 0.2)
    found = boosted_report(rows, table, dealt, linear, seed=0)
    assert found["wins"] is False
    assert found["scores"]["held_out"]["all"]["auc"]["value"] > 0.7
    assert found == boosted_report(rows, table, dealt, linear, seed=0)
    worse = boosted_report(rows, table, dealt, -linear, seed=0)
    assert worse["wins"] is True


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
