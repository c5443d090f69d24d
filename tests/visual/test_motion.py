"""Lip rows follow the mouth and nothing else."""

import numpy as np

from deploy.local.portrait import render_portrait
from services.common.inference import EmbeddedEngine
from services.visual.behaviour import Sample
from services.visual.detection import detect_now
from services.visual.landmarks import FaceView, Mesh, model_inputs, read_meshes
from services.visual.motion import WIDTH, lip_motion, lip_rows


def random_mesh(seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).uniform(0, 200, (478, 3)).astype(np.float32)


def test_rows_do_not_depend_on_where_the_head_is() -> None:
    mesh = random_mesh()
    angle = 0.4
    turn = 1.7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = mesh.copy()
    moved[:, :2] = mesh[:, :2] @ turn.T + [30, -12]
    first, second = lip_rows(np.stack([mesh, moved]))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_untrusted_frames_have_no_row() -> None:
    meshes = {0: Mesh(random_mesh(), 9.0), 1: None, 2: Mesh(random_mesh(), 1.0), 3: Mesh(random_mesh(1), 9.0)}
    samples = [Sample(time_us, mesh) for time_us, mesh in meshes.items()]
    motion = lip_motion(4, samples)
    assert motion is not None
    assert motion.track_id == 4
    assert motion.time_us == (0, 3)
    assert motion.values.shape == (2, WIDTH)
    assert motion.values.dtype == np.float32
    assert lip_motion(4, [Sample(0, None)]) is None


def test_rows_follow_the_mouth(engine: EmbeddedEngine) -> None:
    opening = np.tile([0.0, 0.5, 1.0, 0.5], 4)
    frames = list(render_portrait(len(opening) / 25, 25, mouth=lambda time: float(opening[round(time * 25)]), seed=3))
    (faces,) = detect_now(engine.run, frames[:1])
    views = [FaceView(frame, faces.boxes[0], faces.points[0]) for frame in frames]
    meshes = [read_meshes([view], engine.run("face_landmarker", model_inputs([view])))[0] for view in views]
    rows = lip_rows(np.stack([mesh.landmarks for mesh in meshes]))
    heights = rows[:, 1::2].max(axis=1) - rows[:, 1::2].min(axis=1)
    assert np.corrcoef(heights, opening)[0, 1] > 0.9
