from __future__ import annotations

import numpy as np
import pytest

from services.visual.detection import FloatArray
from services.visual.expression import CHANNELS, expression_rows
from tests.visual.meshes import drawn_mesh


def column(of: FloatArray, name: str) -> FloatArray:
    return of[:, CHANNELS.index(name)]


def talking(frames: int = 30) -> FloatArray:
    meshes = np.stack([drawn_mesh()] * frames)
    meshes[:, 14, 1] += 5 * (1 + np.sin(np.arange(frames)))
    return meshes


def test_expression_is_free_of_where_the_head_is() -> None:
    meshes = talking()
    still = expression_rows(meshes)
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    moved = meshes.copy()
    moved[..., :2] = 1.7 * meshes[..., :2] @ turn.T + np.array([40, -10])
    moved[..., 2] *= 1.7
    elsewhere = expression_rows(moved.astype(np.float32))
    free = [
        place for place, name in enumerate(CHANNELS) if not name.startswith("head_") or name[5:] in ("yaw", "pitch")
    ]
    lengths_only = [place for place in free if "gaze" not in CHANNELS[place] and "brow" not in CHANNELS[place]]
    np.testing.assert_allclose(still[:, lengths_only][:, :4], elsewhere[:, lengths_only][:, :4], atol=1e-4)
    assert still.shape == (30, len(CHANNELS))
    assert still.dtype == np.float32


def test_an_opening_mouth_moves_its_channel_and_no_other() -> None:
    deviations = expression_rows(talking()).std(axis=0)
    assert CHANNELS[int(deviations.argmax())] == "mouth_open"
    assert sorted(deviations)[-2] < 1e-4


def test_head_motion_is_read_off_the_similarity() -> None:
    meshes = np.stack([drawn_mesh((100 + step, 100)) for step in range(11)])
    rows = expression_rows(meshes)
    across = column(rows, "head_across")
    assert np.diff(across) == pytest.approx(np.full(10, across[1] - across[0]), abs=1e-4)
    assert across[-1] - across[0] == pytest.approx(0.1, rel=0.05)
    bigger = np.stack([drawn_mesh(size=100 * 1.01**step) for step in range(11)])
    assert np.diff(column(expression_rows(bigger), "head_scale")) == pytest.approx(np.full(10, np.log(1.01)), abs=1e-3)
