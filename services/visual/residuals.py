"""What is left of a face's pixels when the picture itself is taken away: rows of texture statistics.

Generated and blended faces differ from filmed ones less in what they show than in the finest detail: how
strong it is, how it is distributed, how alike it is from one pixel to the next and from one frame to the next.
Such high-pass residuals are the classical evidence of forgery (Fridrich and Kodovský 2012, "Rich models for
steganalysis of digital images"); generators also leave their mark on the spectrum's fall-off (Durall et al.
2020, "Watch your up-convolution"). Scaling a picture destroys all of it, so nothing is scaled here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from services.visual.detection import FloatArray, Picture

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176),
    *(149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
EYE_OUTLINES = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
SPECTRUM_POINTS = ((117, 346, 151, 4), (13, 61, 291, 199))
"""Points around which spectra are taken: cheeks, forehead and nose; middle and corners of the mouth, and chin."""

REGIONS = ("skin", "mouth", "eyes", "surroundings")
SURROUNDINGS = 3
"""Place of the one region that does not move with the face."""
STATISTICS = 21
LAGS = (1, 2, 4)
SPECTRUM_SIDE = 32
SPECTRUM_BANDS = 15
SPECTRUM_PEAKS = (4, 8, 16)
"""Frequencies, in cycles a spectrum's side, at which up-sampling by 8, 4 and 2 leaves peaks."""
WIDTH = len(REGIONS) * STATISTICS + len(SPECTRUM_POINTS) * (SPECTRUM_BANDS + 1 + len(SPECTRUM_PEAKS)) + 1
"""Numbers a row."""

RUN = 16
"""Consecutive frames that are looked at together; the first of them only serve as the others' past."""
FEWEST_RUNS, MOST_RUNS = 3, 6
PIXEL_BUDGET = 2_400_000
"""Pixels looked at in one clip, within those bounds: large faces are seen in fewer runs."""
WINDOW = 0.8
"""Half the side of the window over the size of the face."""
MOST_WINDOW = 160
"""Largest half side of the window, pixels."""
LEAST_WINDOW = 24
LEAST_SIDE = 40
LEAST_REGION = 60
"""Pixels below which a region says nothing."""
FLOOR = 0.02

Map = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextureRun:
    """Rows of consecutive frames: ``rows`` is float32 [n, WIDTH], of the frames from ``first`` on.

    A region that is too small in a frame has NaN there.
    """

    first: int
    rows: FloatArray


@dataclass(frozen=True, slots=True)
class _Look:
    """One frame through the window: luma, its fine and coarse residual, their scales by region, the face's centre."""

    luma: Map
    fine: Map
    coarse: Map
    fine_scale: Map
    coarse_scale: Map
    centre: FloatArray


def texture_runs(pictures: Sequence[Picture], meshes: Mapping[int, FloatArray]) -> tuple[TextureRun, ...]:
    """Measure one face in runs of consecutive frames, spread over the sequence.

    Args:
        pictures: uint8 [height, width, 3] RGB, all of one size, in close succession.
        meshes: index of picture → landmarks [478, 2 or more] in its pixels; may have gaps.

    Returns:
        Runs in time order, each of at least one row; none when the face is too small or seen too briefly.
    """
    if not meshes:
        return ()
    plane = {index: np.asarray(mesh[:, :2], np.float32) for index, mesh in meshes.items()}
    spans = {index: np.ptp(points[list(OVAL)], axis=0).max() for index, points in plane.items()}
    size = max(float(np.median(list(spans.values()))), 1.0)
    half = max(int(min(size * WINDOW, MOST_WINDOW)), LEAST_WINDOW)
    runs: list[TextureRun] = []
    first, last = min(plane), max(plane) + 1
    for begin, end in planned_runs(last - first, (2 * half) ** 2):
        for stretch in _unbroken(range(first + begin, first + end), plane):
            run = _measure_run(pictures, stretch, plane, size, half)
            if run is not None:
                runs.append(run)
    return tuple(runs)


def planned_runs(frames: int, area: int) -> list[tuple[int, int]]:
    """Where to look: first frame and end of each run; everything when there is little."""
    count = int(np.clip(PIXEL_BUDGET / (area * RUN), FEWEST_RUNS, MOST_RUNS))
    if frames <= RUN * count:
        return [(0, frames)]
    return [(int(start), int(start) + RUN) for start in np.round(np.linspace(0, frames - RUN, count))]


def _unbroken(indices: range, plane: Mapping[int, FloatArray]) -> list[list[int]]:
    """Stretches of indices that all have a mesh and are long enough to have a past."""
    stretches: list[list[int]] = [[]]
    for index in indices:
        if index in plane:
            stretches[-1].append(index)
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if len(stretch) > LAGS[-1]]


def _measure_run(
    pictures: Sequence[Picture], stretch: Sequence[int], plane: Mapping[int, FloatArray], size: float, half: int
) -> TextureRun | None:
    """Rows of one run, seen through a window that stands still, so that what does not move is compared in place."""
    centres = {index: (plane[index][list(OVAL)].min(0) + plane[index][list(OVAL)].max(0)) / 2 for index in stretch}
    middle = np.round(np.mean(list(centres.values()), axis=0)).astype(int)
    height, width = pictures[stretch[0]].shape[:2]
    left, top = max(int(middle[0]) - half, 0), max(int(middle[1]) - half, 0)
    right, bottom = min(int(middle[0]) + half, width), min(int(middle[1]) + half, height)
    if min(right - left, bottom - top) < LEAST_SIDE:
        return None
    past: list[_Look] = []
    rows = []
    for index in stretch:
        points = plane[index] - np.array([left, top], np.float32)
        cut = np.asarray(cv2.cvtColor(pictures[index][top:bottom, left:right], cv2.COLOR_RGB2YCrCb), np.uint8)
        masks = region_masks(points, (bottom - top, right - left), size)
        look, within = _look(cut, masks, centres[index])
        past.append(look)
        if len(past) > LAGS[-1]:
            across = _across_frames(past, masks)
            spectra = _spectra(look.luma, points)
            step = np.hypot(*(look.centre - past[-2].centre)) / size
            statistics = np.concatenate([within, across])
            statistics[:, masks.sum(axis=(1, 2)) < LEAST_REGION] = np.nan
            rows.append(np.concatenate([statistics.T.ravel(), spectra, [np.log(100 * step + 0.05)]]))
    return TextureRun(stretch[LAGS[-1]], np.array(rows, np.float32))


def region_masks(points: FloatArray, shape: tuple[int, int], size: float) -> Map:
    """Skin, mouth, eyes and surroundings of a face, 0 or 1: float32 [4, height, width].

    Args:
        points: landmarks [478, 2] in pixels of the window.
        shape: height and width of the window.
        size: longer side of the face, pixels.
    """
    face, mouth, eyes = (np.zeros(shape, np.uint8) for _ in range(3))
    _fill(face, points, OVAL)
    _fill(mouth, points, LIPS)
    for outline in EYE_OUTLINES:
        _fill(eyes, points, outline)
    brush = np.ones((max(3, int(size * 0.06)) | 1,) * 2, np.uint8)
    wide_mouth, wide_eyes, wide_face = (np.asarray(cv2.dilate(mask, brush)) for mask in (mouth, eyes, face))
    skin = np.asarray(cv2.erode(face, brush)) * (1 - wide_mouth) * (1 - wide_eyes)
    return np.stack([skin, wide_mouth, wide_eyes, 1 - wide_face]).astype(np.float32)


def _fill(mask: npt.NDArray[np.uint8], points: FloatArray, outline: Sequence[int]) -> None:
    hull = cv2.convexHull(np.round(points[list(outline)]).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1)


def _look(cut: npt.NDArray[np.uint8], masks: Map, centre: FloatArray) -> tuple[_Look, FloatArray]:
    """Residuals of one frame and their statistics within it: float [12, regions]."""
    luma, chroma = cut[..., 0].astype(np.float32), cut[..., 1].astype(np.float32)
    smooth = cv2.GaussianBlur(luma, (3, 3), 0.8)
    fine, coarse = luma - smooth, smooth - cv2.GaussianBlur(luma, (9, 9), 2.0)
    colour = chroma - cv2.GaussianBlur(chroma, (7, 7), 1.5)
    sizes = [np.abs(fine), np.abs(coarse), np.abs(colour)]
    neighbours = [fine * np.roll(fine, shift, (0, 1)) for shift in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))]
    mean = _means([fine**2, coarse**2, colour**2, *sizes, *neighbours, sizes[0] * sizes[1]], masks)
    scales = np.sqrt(mean[:3] + FLOOR)
    statistics = np.concatenate(
        [np.log(scales), mean[3:6] / scales, mean[6:11] / scales[0] ** 2, mean[11:] / (scales[0] * scales[1])]
    )
    return _Look(luma, fine, coarse, scales[0], scales[1], centre), statistics


def _across_frames(past: Sequence[_Look], masks: Map) -> FloatArray:
    """How the last frame's residuals follow from those before: float [9, regions].

    Faces are laid over one another by whole pixels, which needs no interpolation; the surroundings stay.
    """
    now = past[-1]
    result = np.empty((STATISTICS - 12, len(REGIONS)), np.float32)
    for regions, follow in ((slice(0, SURROUNDINGS), True), (slice(SURROUNDINGS, None), False)):
        earlier = [_laid_over(past[-1 - lag], now, follow=follow) for lag in LAGS]
        fine, coarse = now.fine - earlier[0][1], now.coarse - earlier[0][2]
        maps = [(now.luma - earlier[0][0]) ** 2, fine**2, coarse**2, np.abs(fine)]
        maps += [now.fine * looks[1] for looks in earlier] + [now.coarse * looks[2] for looks in earlier[:2]]
        mean = _means(maps, masks[regions])
        scale, wide = now.fine_scale[regions], now.coarse_scale[regions]
        result[0, regions] = 0.5 * np.log(mean[0] + FLOOR)
        result[1, regions] = 0.5 * np.log(mean[1] / scale**2 + 1e-3)
        result[2, regions] = 0.5 * np.log(mean[2] / wide**2 + 1e-3)
        result[3, regions] = mean[3] / np.sqrt(mean[1] + FLOOR)
        for place, lag in enumerate(LAGS):
            result[4 + place, regions] = mean[4 + place] / (scale * past[-1 - lag].fine_scale[regions])
        for place, lag in enumerate(LAGS[:2]):
            result[7 + place, regions] = mean[7 + place] / (wide * past[-1 - lag].coarse_scale[regions])
    return result


def _laid_over(look: _Look, now: _Look, *, follow: bool) -> tuple[Map, Map, Map]:
    """An earlier frame's maps, moved by whole pixels to where the face is now."""
    if not follow:
        return look.luma, look.fine, look.coarse
    across, down = (round(float(step)) for step in now.centre - look.centre)
    return _moved(look.luma, across, down), _moved(look.fine, across, down), _moved(look.coarse, across, down)


def _moved(values: Map, across: int, down: int) -> Map:
    """Shift a map; what comes in from outside is 0."""
    if not across and not down:
        return values
    moved = np.zeros_like(values)
    height, width = values.shape
    if abs(across) < width and abs(down) < height:
        kept = values[max(-down, 0) : height + min(-down, 0), max(-across, 0) : width + min(-across, 0)]
        moved[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)] = kept
    return moved


def _means(maps: Sequence[Map], masks: Map) -> Map:
    """Mean of every map in every region: float32 [maps, regions]."""
    flat = np.stack(maps).reshape(len(maps), -1)
    weights = masks.reshape(len(masks), -1)
    return np.asarray((flat @ weights.T) / (weights.sum(axis=1) + np.float32(1e-3)), np.float32)


@cache
def _spectrum_tables() -> tuple[Map, Map, FloatArray]:
    """Hann window [32, 32], averaging of the half spectrum into rings [32·17, 15], and the unit log-frequency line."""
    half = np.hanning(SPECTRUM_SIDE + 2)[1:-1]
    down, across = np.fft.fftfreq(SPECTRUM_SIDE)[:, None], np.fft.rfftfreq(SPECTRUM_SIDE)[None]
    ring = np.round(np.hypot(down, across) * SPECTRUM_SIDE).astype(int).ravel()
    rings = (ring[:, None] == np.arange(1, SPECTRUM_BANDS + 1)).astype(np.float32)
    line = np.log(np.arange(1, SPECTRUM_BANDS + 1))
    line -= line.mean()
    return (
        np.outer(half, half).astype(np.float32),
        rings / rings.sum(axis=0),
        (line / np.linalg.norm(line)).astype(np.float32),
    )


def _spectra(luma: Map, points: FloatArray) -> FloatArray:
    """Log power by spatial frequency less its slope, the slope, and peaks on the axes; mean of face and of mouth."""
    window, rings, line = _spectrum_tables()
    corners = np.round(points[[*SPECTRUM_POINTS[0], *SPECTRUM_POINTS[1]]]).astype(int) - SPECTRUM_SIDE // 2
    limits = np.array(luma.shape[::-1]) - SPECTRUM_SIDE
    patches = np.stack(
        [luma[y : y + SPECTRUM_SIDE, x : x + SPECTRUM_SIDE] for x, y in np.clip(corners, 0, limits)],
    )
    transform = np.fft.rfft2((patches - patches.mean(axis=(1, 2), keepdims=True)) * window)
    power = (transform.real**2 + transform.imag**2).astype(np.float32)
    radial = np.log(power.reshape(len(patches), -1) @ rings + 1)
    radial -= radial.mean(axis=1, keepdims=True)
    slope = radial @ line
    axes = power[:, 0, :] + power[:, : SPECTRUM_SIDE // 2 + 1, 0]
    peaks = [_peak(axes, frequency) for frequency in SPECTRUM_PEAKS]
    features = np.concatenate([radial - slope[:, None] * line, slope[:, None], np.stack(peaks, axis=1)], axis=1)
    count = len(SPECTRUM_POINTS[0])
    return np.concatenate([features[:count].mean(axis=0), features[count:].mean(axis=0)])


def _peak(axes: Map, frequency: int) -> FloatArray:
    """Log power at a frequency over that of its neighbours two on either side: [patches]."""
    near = [place for place in (frequency - 2, frequency - 1, frequency + 1, frequency + 2) if place < axes.shape[1]]
    return np.asarray(np.log(axes[:, frequency] + 1) - np.log(axes[:, near].mean(axis=1) + 1), np.float32)
