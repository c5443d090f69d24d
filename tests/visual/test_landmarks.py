"""Crops are level, and meshes come back to where the face is."""

import cv2
import numpy as np
import pytest

from services.common.inference import EmbeddedEngine
from services.visual.batching import ModelCalls
from services.visual.detection import Faces, Picture, detect_now
from services.visual.landmarks import (
    CROP_SIZE,
    FaceView,
    crop_transform,
    find_meshes,
    in_picture,
    level_crop,
    model_inputs,
    read_meshes,
)

RIGHT_EYE, LEFT_EYE, NOSE = (33, 133), (263, 362), 1


def test_the_crop_is_level_and_centred() -> None:
    box, points = np.array([10, 20, 110, 140], np.float32), np.zeros((5, 2), np.float32)
    points[0], points[1] = (40, 60), (80, 90)
    transform = crop_transform(box, points)
    right, left = (transform[:, :2] @ point + transform[:, 2] for point in points[:2])
    assert left[1] == pytest.approx(right[1])
    assert left[0] > right[0]
    np.testing.assert_allclose(transform @ [60, 80, 1], [CROP_SIZE / 2] * 2)


def test_points_return_to_the_picture(portrait: Picture, portrait_faces: Faces) -> None:
    view = FaceView(portrait, portrait_faces.boxes[0], portrait_faces.points[0])
    transform = crop_transform(view.box, view.points)
    inside = np.concatenate([view.points @ transform[:, :2].T + transform[:, 2], np.zeros((5, 1))], axis=1)
    np.testing.assert_allclose(in_picture(inside.astype(np.float32), view)[:, :2], view.points, atol=1e-3)


@pytest.mark.parametrize("angle", [-25, 0, 25])
def test_a_tilted_head_has_the_same_mesh(
    engine: EmbeddedEngine, portrait: Picture, portrait_faces: Faces, angle: int
) -> None:
    turn = cv2.getRotationMatrix2D((223, 120), angle, 1)
    turned = np.asarray(cv2.warpAffine(portrait, turn, (512, 512)), np.uint8)
    (faces,) = detect_now(engine.run, [turned])
    views = [
        FaceView(portrait, portrait_faces.boxes[0], portrait_faces.points[0]),
        FaceView(turned, faces.boxes[0], faces.points[0]),
    ]
    straight, tilted = read_meshes(views, engine.run("face_landmarker", model_inputs(views)))
    assert straight.trusted
    assert tilted.trusted
    expected = straight.landmarks[:, :2] @ turn[:, :2].T + turn[:, 2]
    assert np.median(np.hypot(*(expected - tilted.landmarks[:, :2]).T)) < 4


async def test_meshes_of_many_faces_keep_their_order(
    engine: EmbeddedEngine, portrait: Picture, portrait_faces: Faces
) -> None:
    views = [
        FaceView(
            np.roll(portrait, shift, axis=1),
            portrait_faces.boxes[0] + np.array([shift, 0, shift, 0], np.float32),
            portrait_faces.points[0] + np.array([shift, 0], np.float32),
        )
        for shift in range(0, 50, 10)
    ]
    meshes = await find_meshes(ModelCalls(engine, timeout=60, in_flight=2), views, batch=2)
    noses = [mesh.landmarks[NOSE, 0] for mesh in meshes]
    np.testing.assert_allclose(np.diff(noses), 10, atol=0.5)


def test_where_no_face_is_the_mesh_is_not_trusted(
    engine: EmbeddedEngine, portrait: Picture, portrait_faces: Faces
) -> None:
    view = FaceView(np.full_like(portrait, 127), portrait_faces.boxes[0], portrait_faces.points[0])
    (mesh,) = read_meshes([view], engine.run("face_landmarker", model_inputs([view])))
    assert not mesh.trusted


def test_a_crop_beyond_the_picture_repeats_its_edge(portrait: Picture) -> None:
    points = np.array([[-10, 10], [20, 10], [5, 20], [0, 30], [10, 30]], np.float32)
    crop = level_crop(FaceView(portrait, np.array([-40, -40, 50, 60], np.float32), points))
    assert crop.shape == (CROP_SIZE, CROP_SIZE, 3)
    np.testing.assert_array_equal(crop[0, 0], portrait[0, 0])
