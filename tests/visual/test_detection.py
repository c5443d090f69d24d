"""YuNet finds the portrait wherever and however large it is shown."""

import numpy as np
import pytest

from services.common.inference import EmbeddedEngine
from services.visual.batching import ModelCalls
from services.visual.detection import (
    Canvas,
    Faces,
    Picture,
    decode,
    detect,
    detect_now,
    intersection_over_union,
    without_duplicates,
)


def test_the_portrait_has_one_face_with_its_points_in_order(portrait_faces: Faces) -> None:
    assert len(portrait_faces) == 1
    right_eye, left_eye, nose, right_mouth, left_mouth = portrait_faces.points[0]
    assert right_eye[0] < nose[0] < left_eye[0]
    assert right_mouth[0] < left_mouth[0]
    assert right_eye[1] < nose[1] < right_mouth[1]
    left, top, right, bottom = portrait_faces.boxes[0]
    assert left < right_eye[0] < left_eye[0] < right
    assert top < right_eye[1] < left_mouth[1] < bottom


@pytest.mark.parametrize("size", [(720, 1280), (1080, 700), (530, 801)])
def test_boxes_are_in_pixels_of_the_picture(
    engine: EmbeddedEngine, portrait: Picture, portrait_faces: Faces, size: tuple[int, int]
) -> None:
    picture = np.full((*size, 3), 128, np.uint8)
    picture[10 : 10 + 512, 150 : 150 + 512] = portrait
    (faces,) = detect_now(engine.run, [picture])
    assert len(faces) == 1
    moved = portrait_faces.boxes[0] + np.array([150, 10, 150, 10])
    assert intersection_over_union(faces.boxes, moved[None])[0, 0] > 0.85


async def test_a_batch_gives_what_single_pictures_give(engine: EmbeddedEngine, portrait: Picture) -> None:
    pictures = [portrait, portrait[:300, :400], portrait[::-1].copy(), portrait[:, ::-1].copy(), portrait]
    calls = ModelCalls(engine, timeout=60, in_flight=2)
    together = await detect(calls, pictures, batch=3)
    for joint, single in zip(together, detect_now(engine.run, pictures), strict=True):
        np.testing.assert_allclose(joint.boxes, single.boxes, atol=1e-3)
        np.testing.assert_allclose(joint.points, single.points, atol=1e-3)
        np.testing.assert_allclose(joint.scores, single.scores, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (5, 900), (64, 64), (360, 640)])
def test_pictures_without_a_face_have_none(engine: EmbeddedEngine, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert [len(faces) for faces in detect_now(engine.run, [noise, np.zeros_like(noise)])] == [0, 0]


def test_frames_may_be_read_only(engine: EmbeddedEngine, portrait: Picture) -> None:
    frozen = np.frombuffer(portrait.tobytes(), np.uint8).reshape(portrait.shape)
    assert len(detect_now(engine.run, [frozen])[0]) == 1


def test_one_lit_cell_is_decoded_as_the_paper_says() -> None:
    canvas = Canvas.fitting(64, 64)
    cells = 8 * 8 + 4 * 4 + 2 * 2
    widths = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    outputs = {name: np.zeros((1, cells, width), np.float32) for name, width in widths.items()}
    cell = 64 + 4 * 2 + 3  # stride 16, row 2, column 3
    outputs["cls"][0, cell], outputs["obj"][0, cell] = 0.9, 1.0
    outputs["bbox"][0, cell] = (0.5, -0.25, np.log(2), np.log(1.5))
    outputs["kps"][0, cell, :2] = (1, 0.5)
    (faces,) = decode(outputs, canvas.padded_height, canvas.padded_width, 0.8)
    np.testing.assert_allclose(faces.scores, [np.sqrt(0.9)], rtol=1e-6)
    np.testing.assert_allclose(faces.boxes, [[56 - 16, 28 - 12, 56 + 16, 28 + 12]], rtol=1e-6)
    np.testing.assert_allclose(faces.points[0, 0], [64, 40], rtol=1e-6)


def test_of_two_boxes_on_one_face_the_first_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]], np.float32)
    assert without_duplicates(boxes, 0.3) == [0, 2]


def test_overlap_of_degenerate_boxes_is_zero() -> None:
    point = np.zeros((1, 4), np.float32)
    assert intersection_over_union(point, point)[0, 0] == 0
