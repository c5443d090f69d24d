"""Which crops are judged, which face speaks, and what fusion is told."""

import numpy as np
import pytest

from services.common.evidence import Branch
from services.visual.detection import Picture
from services.visual.scoring import (
    Choice,
    CropScore,
    choose_crops,
    clip_features,
    clip_score,
    sigmoid,
    speaking_track,
    timeline,
)
from services.visual.tracking import Sighting, Track

SURVEY: list[Picture] = [np.zeros((720, 1280, 3), np.uint8) for _ in range(16)]
DENSE: list[Picture] = [np.zeros((360, 640, 3), np.uint8) for _ in range(30)]


def track(track_id: int, side: float, survey: range = range(16), dense: range = range(0)) -> Track:
    def sighting(index: int, *, of_dense: bool) -> Sighting:
        box = np.array([0.4, 0.4, 0.4 + side / 1280, 0.4 + side / 720], np.float32)
        time_us = index * (40_000 if of_dense else 1_000_000)
        return Sighting(time_us, of_dense, index, box, np.zeros((5, 2), np.float32), 0.9)

    return Track(
        track_id, (*(sighting(i, of_dense=False) for i in survey), *(sighting(i, of_dense=True) for i in dense))
    )


def scores(track_id: int, *logits: float) -> list[CropScore]:
    return [CropScore(track_id, index * 1000, logit, patches=9) for index, logit in enumerate(logits)]


def test_one_face_is_judged_in_every_survey_frame() -> None:
    crops = choose_crops([track(1, 100)], SURVEY, DENSE, Choice(16, 48))
    assert [crop.time_us for crop in crops] == [index * 1_000_000 for index in range(16)]
    np.testing.assert_allclose(crops[0].box, [512, 288, 612, 388], rtol=1e-4)


def test_many_faces_share_the_budget_and_keep_the_ends() -> None:
    crops = choose_crops([track(number, 100) for number in range(1, 9)], SURVEY, DENSE, Choice(16, 48))
    assert len(crops) == 48
    times = [crop.time_us for crop in crops if crop.track_id == 3]
    assert len(times) == 6
    assert (times[0], times[-1]) == (0, 15_000_000)


def test_small_faces_are_not_judged() -> None:
    assert choose_crops([track(1, 31)], SURVEY, DENSE, Choice(16, 48)) == []


def test_a_face_seen_only_in_the_dense_window_is_judged_there() -> None:
    crops = choose_crops([track(1, 100, survey=range(0), dense=range(0, 30, 3))], SURVEY, DENSE, Choice(4, 48))
    assert [crop.picture.shape[0] for crop in crops] == [360] * 4
    assert crops[-1].time_us == 27 * 40_000


def test_the_most_suspicious_face_speaks() -> None:
    frame = [*scores(1, *[-2.0] * 16), *scores(2, *[1.0] * 16)]
    assert speaking_track([frame]) == 2
    assert clip_score(frame, 2) == pytest.approx(float(sigmoid(1.0)))


def test_a_passer_by_does_not_speak() -> None:
    assert speaking_track([[*scores(1, *[-2.0] * 16), *scores(2, 5.0, 5.0, 5.0)]]) == 1
    assert speaking_track([[*scores(1, *[-2.0] * 16), *scores(2, 5.0, 5.0, 5.0, 5.0)]]) == 2


def test_a_face_seen_once_speaks_when_there_is_no_better() -> None:
    assert speaking_track([scores(1, 0.3)]) == 1
    assert speaking_track([[*scores(1, 0.3), *scores(2, 0.9)]]) == 2


def test_both_branches_judge_the_same_face() -> None:
    patch = [*scores(1, *[3.0] * 6), *scores(2, *[-1.0] * 6)]
    frame = [*scores(1, *[0.0] * 6), *scores(2, *[2.0] * 6)]
    assert speaking_track([patch, frame]) == 1


def test_features_are_of_the_face_that_speaks() -> None:
    both = [*scores(1, *np.linspace(-1, 1, 11)), *scores(2, 9.0)]
    features = clip_features(Branch.PATCH, both, 1)
    probabilities = sigmoid(np.linspace(-1, 1, 11))
    assert features == {
        "tiny_prob_mean": pytest.approx(0.5),
        "tiny_prob_max": pytest.approx(probabilities[-1]),
        "tiny_prob_p90": pytest.approx(probabilities[-2]),
        "tiny_num_files": 11,
        "tiny_num_patches": 99,
    }
    assert set(clip_features(Branch.FRAME, both, 2)) == {
        "visual_prob_mean",
        "visual_prob_max",
        "visual_prob_p90",
        "visual_num_faces",
    }


def test_the_timeline_is_in_time_order_with_every_face() -> None:
    points = timeline([*scores(1, 0.0, 1.0), *scores(2, -1.0)])
    assert [(point.time_us, point.track_id) for point in points] == [(0, 1), (0, 2), (1000, 1)]
    assert points[0].probability == 0.5


def test_sigmoid_holds_at_the_extremes() -> None:
    np.testing.assert_allclose(sigmoid([-1e6, 0, 1e6]), [0, 0.5, 1])
