"""Statistics of what is left of a still face when the picture itself is taken away, at native resolution.

The same residuals as the temporal branch reads (``services/visual/residuals.py``), without frames to compare and
without a mesh: regions are laid out by the detector's box.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from services.visual.crops import FACE_MARGIN

Floats = npt.NDArray[np.float32]
SMALLEST = 48
"""Pixels to which smaller windows are padded by mirroring, so that every filter fits."""
SPECTRUM_SIDE = 32
SPECTRUM_BANDS = 15
PEAKS = (4, 8, 16)
SPOTS = ((0.5, 0.25), (0.3, 0.55), (0.7, 0.55), (0.5, 0.75))
"""Middle of forehead, cheeks and mouth, as shares of the window."""


def texture_of(picture: npt.NDArray[np.uint8], box: Floats) -> Floats:
    """Statistics of one face: float32 [width].

    Args:
        picture: uint8 [height, width, 3] RGB.
        box: left, top, right, bottom, pixels.
    """
    window = _window(picture, box)
    ycc = np.asarray(cv2.cvtColor(window, cv2.COLOR_RGB2YCrCb), np.float32)
    luma = ycc[..., 0]
    smooth = cv2.GaussianBlur(luma, (3, 3), 0.8)
    fine, coarse = luma - smooth, smooth - cv2.GaussianBlur(luma, (9, 9), 2.0)
    colours = [ycc[..., at] - cv2.GaussianBlur(ycc[..., at], (7, 7), 1.5) for at in (1, 2)]
    masks = _regions(luma.shape[0])
    per_region = _statistics(fine, coarse, colours, masks)
    return np.concatenate([per_region.ravel(), _spectra(luma)]).astype(np.float32)


def _window(picture: npt.NDArray[np.uint8], box: Floats) -> npt.NDArray[np.uint8]:
    """The square that a crop is cut from, unscaled, within the picture."""
    height, width = picture.shape[:2]
    side = float(max(box[2] - box[0], box[3] - box[1])) * FACE_MARGIN
    centre = (box[:2] + box[2:]) / 2
    left, top = (max(round(float(value) - side / 2), 0) for value in centre)
    right, bottom = min(left + round(side), width), min(top + round(side), height)
    cut = picture[top:bottom, left:right]
    side = max(min(cut.shape[:2]), 2)
    cut = np.ascontiguousarray(cut[:side, :side])
    short = max(SMALLEST - side, 0)
    return np.asarray(cv2.copyMakeBorder(cut, 0, short, 0, short, cv2.BORDER_REFLECT_101), np.uint8)


def _regions(side: int) -> Floats:
    """Skin and eyes, mouth, and what surrounds the face: float32 [3, side, side]."""
    down, across = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    face = (across / 0.36) ** 2 + (down / 0.45) ** 2 < 1
    mouth = face & (down > 0.12) & (np.abs(across) < 0.22)
    return np.stack([face & ~mouth, mouth, ~face]).astype(np.float32)


def _statistics(fine: Floats, coarse: Floats, colours: Sequence[Floats], masks: Floats) -> Floats:
    """Scale, shape and correlation of the residuals in every region: float32 [statistics, regions]."""
    shifts = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
    squares = [fine**2, coarse**2, *(colour**2 for colour in colours)]
    sizes = [np.abs(fine), np.abs(coarse), *(np.abs(colour) for colour in colours)]
    near = [fine * np.roll(fine, shift, (0, 1)) for shift in shifts]
    wide = [coarse * np.roll(coarse, shift, (0, 1)) for shift in ((0, 2), (2, 0), (2, 2))]
    maps = [*squares, *sizes, *near, *wide, sizes[0] * sizes[1], sizes[0] * sizes[2], fine**4]
    flat, weights = np.stack(maps).reshape(len(maps), -1), masks.reshape(len(masks), -1)
    mean = flat @ weights.T / (weights.sum(axis=1) + 1)
    scale = np.sqrt(mean[:4] + 0.02)
    return np.concatenate(
        [
            np.log(scale),
            np.log(scale[1:2] / scale[:1]),
            np.log(scale[2:4] / scale[:1]),
            mean[4:8] / scale,
            mean[8:14] / scale[0] ** 2,
            mean[14:17] / scale[1] ** 2,
            mean[17:18] / (scale[0] * scale[1]),
            mean[18:19] / (scale[0] * scale[2]),
            np.log(mean[19:20] / scale[0] ** 4 + 1),
        ]
    )


def _spectra(luma: Floats) -> Floats:
    """Log power by spatial frequency less its slope, the slope, and peaks of up-sampling, over four spots."""
    side, size = luma.shape[0], SPECTRUM_SIDE
    half = np.hanning(size + 2)[1:-1]
    down, across = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    ring = np.round(np.hypot(down, across) * size).astype(int)
    line = np.log(np.arange(1, SPECTRUM_BANDS + 1))
    line = (line - line.mean()) / np.linalg.norm(line - line.mean())
    features = []
    for x, y in SPOTS:
        left, top = (int(np.clip(share * side - size / 2, 0, side - size)) for share in (x, y))
        patch = luma[top : top + size, left : left + size]
        power = np.abs(np.fft.rfft2((patch - patch.mean()) * np.outer(half, half))) ** 2
        radial = np.log(np.array([power[ring == band].mean() for band in range(1, SPECTRUM_BANDS + 1)]) + 1)
        slope = float(radial @ line)
        axes = power[0, :] + power[: size // 2 + 1, 0]
        peaks = [np.log(axes[at] + 1) - np.log(axes[[at - 2, at - 1]].mean() + 1) for at in PEAKS]
        features.append([*(radial - radial.mean() - slope * line), slope, *peaks])
    table = np.array(features, np.float32)
    return np.concatenate([table[:3].mean(axis=0), table[3]])
