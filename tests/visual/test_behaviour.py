"""Blinks are counted against the face's own open level; rigid motion is no jitter."""

import numpy as np
import pytest

from deploy.local.portrait import render_portrait
from services.common.inference import EmbeddedEngine
from services.visual.behaviour import Sample, count_blinks, eye_aspect_ratio, landmark_jitter, observe
from services.visual.detection import Faces, Picture, detect_now
from services.visual.landmarks import FaceView, Mesh, model_inputs, read_meshes

FRAME_US = 40_000


def series(seconds: float, blinks: list[float], level: float = 0.3) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    times = np.arange(round(seconds * 25)) * FRAME_US
    ratios = np.full(len(times), level)
    for blink in blinks:
        ratios[np.abs(times / 1e6 - blink) < 0.1] = 0.3 * level
    return times.astype(np.int64), ratios


@pytest.fixture(scope="module")
def open_mesh(engine: EmbeddedEngine, portrait: Picture, portrait_faces: Faces) -> Mesh:
    face = FaceView(portrait, portrait_faces.boxes[0], portrait_faces.points[0])
    return read_meshes([face], engine.run("face_landmarker", model_inputs([face])))[0]


@pytest.mark.parametrize("blinks", [[], [1.0], [0.5, 1.2, 3.0, 4.4, 7.0, 9.5]])
def test_every_blink_counts_once(blinks: list[float]) -> None:
    assert count_blinks(*series(10, blinks)) == len(blinks)


def test_the_open_level_may_drift() -> None:
    times, ratios = series(10, [2.0, 5.0, 8.0])
    assert count_blinks(times, ratios * np.linspace(1.0, 0.6, len(times))) == 3


def test_noise_at_the_threshold_does_not_count_twice() -> None:
    times, ratios = series(4, [2.0])
    shut = np.flatnonzero(ratios < 0.2)
    ratios[shut] = 0.3 * np.array([0.6, 0.7, 0.6, 0.7, 0.6])[: len(shut)]
    assert count_blinks(times, ratios) == 1


def test_shut_eyes_are_no_blink() -> None:
    times, ratios = series(6, [])
    ratios[50:80] = 0.05
    assert count_blinks(times, ratios) == 0


def test_a_blink_cut_by_missing_frames_is_not_counted() -> None:
    times, ratios = series(4, [2.0])
    kept = ~((times > 2_000_000) & (times < 2_300_000))
    assert count_blinks(times[kept], ratios[kept]) == 0


def test_single_missing_frames_do_no_harm() -> None:
    times, ratios = series(10, [1.0, 4.0, 7.0])
    kept = np.arange(len(times)) % 5 != 0
    assert count_blinks(times[kept], ratios[kept]) == 3


def test_an_open_eye_has_the_ratio_of_the_paper(open_mesh: Mesh) -> None:
    assert 0.25 < eye_aspect_ratio(open_mesh.landmarks) < 0.4


def test_nothing_is_said_without_trusted_meshes(open_mesh: Mesh) -> None:
    doubtful = Mesh(open_mesh.landmarks, presence=4.9)
    behaviour = observe([Sample(0, None), Sample(FRAME_US, doubtful)])
    assert behaviour.blinks is None
    assert behaviour.eye_aspect_mean is None
    assert behaviour.observed_seconds == 0
    assert behaviour.eye_aspect == ()


def test_a_second_is_too_short_for_a_rate(open_mesh: Mesh) -> None:
    behaviour = observe([Sample(index * FRAME_US, open_mesh) for index in range(25)])
    assert behaviour.blinks is None
    assert behaviour.blinks_per_minute is None
    assert behaviour.observed_seconds == pytest.approx(0.96)


def test_a_still_face_does_not_tremble(open_mesh: Mesh) -> None:
    behaviour = observe([Sample(index * FRAME_US, open_mesh) for index in range(75)])
    assert behaviour.blinks == 0
    assert behaviour.landmark_jitter == pytest.approx(0, abs=1e-6)
    assert behaviour.eye_aspect_deviation == pytest.approx(0, abs=1e-9)


def test_rigid_motion_is_no_jitter_and_noise_is(open_mesh: Mesh) -> None:
    times = np.arange(30, dtype=np.int64) * FRAME_US
    angles, sizes = 0.2 * np.sin(times / 2e5), 1 + 0.1 * np.cos(times / 3e5)
    turns = sizes * np.exp(1j * angles)
    face = open_mesh.landmarks[:, 0] + 1j * open_mesh.landmarks[:, 1]
    plane = face * turns[:, None] + 5 * np.sin(times / 1e5)[:, None]
    moving = np.stack([plane.real, plane.imag, np.zeros_like(plane.real)], axis=-1).astype(np.float32)
    jitter = landmark_jitter(times, moving)
    assert jitter is not None
    assert jitter < 0.01
    noisy = moving + np.random.default_rng(0).normal(0, 0.5, moving.shape).astype(np.float32)
    trembling = landmark_jitter(times, noisy)
    span = np.hypot(*(open_mesh.landmarks[33, :2] - open_mesh.landmarks[263, :2]))
    assert trembling == pytest.approx(1000 * 0.5 * np.sqrt(2 * 6) / span, rel=0.1)


def test_jitter_needs_three_frames_in_a_row(open_mesh: Mesh) -> None:
    landmarks = np.stack([open_mesh.landmarks] * 4)
    assert landmark_jitter(np.array([0, FRAME_US]), landmarks[:2]) is None
    assert landmark_jitter(np.array([0, 1_000_000, 2_000_000, 3_000_000]), landmarks) is None


def test_the_portrait_shuts_its_eyes(engine: EmbeddedEngine) -> None:
    opened, shut = next(render_portrait(0.08, 25, sway=0)), list(render_portrait(0.08, 25, [0.04], sway=0))[1]
    (faces,) = detect_now(engine.run, [opened])
    views = [FaceView(picture, faces.boxes[0], faces.points[0]) for picture in (opened, shut)]
    meshes = read_meshes(views, engine.run("face_landmarker", model_inputs(views)))
    wide, closed = (eye_aspect_ratio(mesh.landmarks) for mesh in meshes)
    assert closed < 0.5 * wide
