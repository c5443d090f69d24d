"""Identity holds across gaps and survey frames, and ends at a cut."""

import numpy as np
import pytest

from services.visual.detection import Faces
from services.visual.tracking import Track, View, between, follow, thumbnail

SECOND = 1_000_000
ROOM = thumbnail(np.full((90, 160, 3), 60, np.uint8))
STREET = thumbnail(np.full((90, 160, 3), 200, np.uint8))
Box = tuple[float, float, float, float]


def faces(*boxes: Box) -> Faces:
    points = [[[left, top]] * 5 for left, top, _, _ in boxes]
    return Faces(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(points, np.float32).reshape(-1, 5, 2),
        np.full(len(boxes), 0.9, np.float32),
    )


def square(x: float, y: float = 0.4, side: float = 0.2) -> Box:
    return (x, y, x + side, y + side)


def view(time_us: int, *boxes: Box, dense: bool = False, index: int = 0, scene: np.ndarray = ROOM) -> View:  # type: ignore[type-arg]
    return View(time_us, dense, index, faces(*boxes), scene)


def counts(views: list[View], most: int = 8) -> list[int]:
    return [len(track.sightings) for track in follow(views, most=most).tracks]


def test_a_moving_face_is_one_track() -> None:
    assert counts([view(step * 120_000, square(0.1 + 0.02 * step)) for step in range(20)]) == [20]


def test_two_faces_that_pass_keep_apart() -> None:
    views = [view(step * 120_000, square(0.1, side=0.2), square(0.5, side=0.3)) for step in range(6)]
    found = follow(views, most=8).tracks
    assert [track.box for track in found] == [pytest.approx(square(0.5, side=0.3)), pytest.approx(square(0.1))]


def test_identity_holds_across_a_gap() -> None:
    views = [view(0, square(0.3)), view(400_000), view(900_000), view(1_300_000, square(0.33))]
    assert counts(views) == [2]


def test_survey_frames_far_apart_join_when_they_overlap() -> None:
    assert counts([view(step * 20 * SECOND, square(0.3 + 0.1 * (step % 2))) for step in range(16)]) == [16]


def test_a_face_elsewhere_is_another_face() -> None:
    assert counts([view(0, square(0.1)), view(SECOND, square(0.7))]) == [1, 1]


def test_a_cut_starts_a_new_track_and_the_old_shot_finds_its_own_again() -> None:
    views = [
        view(0, square(0.3)),
        view(SECOND, square(0.3)),
        view(2 * SECOND, square(0.31), scene=STREET),
        view(3 * SECOND, square(0.3)),
        view(4 * SECOND, square(0.31), scene=STREET),
    ]
    tracks = follow(views, most=8).tracks
    assert [[sighting.time_us // SECOND for sighting in track.sightings] for track in tracks] == [[0, 1, 3], [2, 4]]


def test_survey_and_dense_frames_share_one_clock() -> None:
    survey = [view(step * SECOND, square(0.3)) for step in range(3)]
    dense = [view(step * 120_000, square(0.3), dense=True, index=step) for step in range(10)]
    (track,) = follow([*dense, *survey], most=8).tracks
    assert [sighting.time_us for sighting in track.sightings] == sorted(s.time_us for s in track.sightings)
    assert len(track.sightings) == 13


def test_the_most_present_faces_stay_and_the_rest_are_counted() -> None:
    places = [(column, row) for row in range(3) for column in range(4)]
    boxes = [square(0.09 * column, 0.3 * row, 0.05 + 0.001 * (4 * row + column)) for column, row in places]
    found = follow([view(step * SECOND, *boxes) for step in range(4)], most=8)
    assert found.skipped == 4
    assert [track.track_id for track in found.tracks] == list(range(1, 9))
    assert min(track.presence for track in found.tracks) > 4 * (0.05 + 0.0035) ** 2


def test_the_place_of_a_face_between_detections_is_interpolated() -> None:
    times = [step * 40_000 for step in range(20)]
    seen = {0: 0.1, 3: 0.13, 6: 0.16, 18: 0.2}
    views = [view(times[index], square(x), dense=True, index=index) for index, x in seen.items()]
    (track,) = follow(views, most=8).tracks
    places = between(track, times, longest_gap_us=200_000)
    assert list(places) == [0, 1, 2, 3, 4, 5, 6, 18]
    np.testing.assert_allclose(places[1][0], square(0.11), rtol=1e-5)


def test_a_track_of_survey_frames_has_no_dense_places() -> None:
    (track,) = follow([view(0, square(0.1))], most=1).tracks
    assert between(Track(1, track.sightings), [], longest_gap_us=1) == {}
