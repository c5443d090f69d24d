from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.visual.detection import FloatArray, Picture
from services.visual.residuals import (
    MOST_RUNS,
    PIXEL_BUDGET,
    REGIONS,
    RUN,
    STATISTICS,
    WIDTH,
    planned_runs,
    region_masks,
    texture_runs,
)
from tests.visual.meshes import drawn_mesh

FINE_SCALE, FOLLOWS, FOLLOWS_LATER = 0, 16, 18
"""Places of statistics within a region: log scale of the fine residual, its correlation over 1 and 4 frames."""


def noise(seed: int, deviation: float = 12.0) -> Picture:
    values = np.random.default_rng(seed).normal(128, deviation, (200, 200, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def rows(pictures: list[Picture], meshes: dict[int, FloatArray] | None = None) -> FloatArray:
    found = texture_runs(pictures, meshes or dict.fromkeys(range(len(pictures)), drawn_mesh()))
    return np.concatenate([run.rows for run in found])


def statistic(of: FloatArray, region: str, place: int) -> float:
    return float(of[:, REGIONS.index(region) * STATISTICS + place].mean())


def test_rows_are_finite_and_the_same_every_time() -> None:
    pictures = [noise(index) for index in range(20)]
    first, second = rows(pictures), rows(pictures)
    assert first.shape == (16, WIDTH)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)


def test_a_softened_mouth_is_seen_at_the_mouth_alone() -> None:
    pictures = [noise(index) for index in range(12)]
    mask = region_masks(drawn_mesh()[:, :2], (200, 200), 100)[REGIONS.index("mouth"), ..., None]
    soft = [np.where(mask > 0, cv2.GaussianBlur(picture, (0, 0), 1.5), picture) for picture in pictures]
    plain, forged = rows(pictures), rows(soft)
    assert statistic(forged, "mouth", FINE_SCALE) < statistic(plain, "mouth", FINE_SCALE) - 0.5
    for region in ("eyes", "surroundings"):
        assert statistic(forged, region, FINE_SCALE) == pytest.approx(statistic(plain, region, FINE_SCALE), abs=0.02)


def test_texture_that_stays_is_told_from_texture_that_boils() -> None:
    still = rows([noise(0)] * 12)
    boiling = rows([noise(index) for index in range(12)])
    for region in REGIONS:
        assert statistic(still, region, FOLLOWS) == pytest.approx(1, abs=0.01)
        assert statistic(boiling, region, FOLLOWS) == pytest.approx(0, abs=0.1)


def test_texture_is_followed_when_the_face_moves_and_not_in_the_surroundings() -> None:
    texture = np.asarray(cv2.copyMakeBorder(noise(1), 50, 50, 50, 50, cv2.BORDER_REFLECT), np.uint8)
    pictures = [texture[50:250, 50 - 2 * step : 250 - 2 * step] for step in range(10)]
    meshes = {step: drawn_mesh((100 + 2 * step, 100)) for step in range(10)}
    moved = rows(pictures, meshes)
    assert statistic(moved, "skin", FOLLOWS_LATER) == pytest.approx(1, abs=0.05)
    assert statistic(moved, "surroundings", FOLLOWS_LATER) == pytest.approx(0, abs=0.1)


def test_runs_do_not_bridge_frames_without_a_mesh() -> None:
    pictures = [noise(index) for index in range(30)]
    meshes = {index: drawn_mesh() for index in range(30) if index not in (9, 10, 20)}
    assert [(run.first, len(run.rows)) for run in texture_runs(pictures, meshes)] == [(4, 5), (15, 5), (25, 5)]


def test_nothing_is_said_without_a_face_or_a_past() -> None:
    pictures = [noise(index) for index in range(4)]
    assert texture_runs(pictures, {}) == ()
    assert texture_runs(pictures, dict.fromkeys(range(4), drawn_mesh())) == ()


def test_a_region_that_is_too_small_is_left_unknown() -> None:
    mesh = drawn_mesh(size=40)
    found = rows([noise(index) for index in range(8)], dict.fromkeys(range(8), mesh))
    eyes = found[:, REGIONS.index("eyes") * STATISTICS : (REGIONS.index("eyes") + 1) * STATISTICS]
    surroundings = found[:, 3 * STATISTICS : 4 * STATISTICS]
    assert np.isnan(eyes).all() or np.isfinite(eyes).all()
    assert np.isfinite(surroundings).all()


@pytest.mark.parametrize("frames", [1, 48, 49, 250])
@pytest.mark.parametrize("side", [64, 160, 320])
def test_effort_is_bounded(frames: int, side: int) -> None:
    runs = planned_runs(frames, side * side)
    looked = sum(end - begin for begin, end in runs)
    assert looked <= max(PIXEL_BUDGET / side**2 + RUN, 3 * RUN)
    assert looked <= MOST_RUNS * RUN
    assert all(0 <= begin < end <= frames for begin, end in runs)
    assert runs == sorted(runs)
