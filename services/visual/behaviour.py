"""What a face did: eye openness, blinks and the trembling of its landmarks.

The eye-aspect ratio is that of Soukupová and Čech, "Real-time eye blink detection using facial landmarks"
(2016): the mean of two lid distances over the distance between the eye's corners, about 0.3 for an open
eye. Level and noise differ from face to face, so a blink is judged against the face's own open level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.common.evidence import Behaviour
from services.visual.landmarks import Mesh

FloatArray = npt.NDArray[np.float32]
Series = npt.NDArray[np.float64]

EYES = ((33, 160, 158, 133, 153, 144), (263, 387, 385, 362, 380, 373))
"""Of each eye: outer corner, two points of the upper lid, inner corner, two points of the lower lid."""
OUTER_CORNERS = (33, 263)
FACE_POINTS = 468
"""Points of the mesh without the irises."""

CLOSED_BELOW = 0.65
"""A blink begins when the ratio falls below this share of the open level."""
OPEN_ABOVE = 0.8
"""A blink ends when the ratio has risen above this share of the open level."""
OPEN_QUANTILE = 0.8
"""Quantile of the ratios nearby that stands for the open eye."""
LEVEL_WINDOW_US = 3_000_000
LONGEST_BLINK_US = 800_000
"""Eyes closed for longer are shut, not blinking."""
LONGEST_STEP_US = 120_000
"""Steps longer than this may hide a blink, so nothing is concluded across them."""
MIN_OBSERVED_SECONDS = 2.0
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """The mesh of one dense frame; None where none could be found."""

    time_us: int
    mesh: Mesh | None


def eye_aspect_ratio(landmarks: FloatArray) -> float:
    """Mean ratio of both eyes, from a mesh [478, 3]; 0 is closed."""
    plane = landmarks[:, :2]
    ratios = []
    for outer, upper_outer, upper_inner, inner, lower_inner, lower_outer in EYES:
        height = np.hypot(*(plane[upper_outer] - plane[lower_outer]))
        height += np.hypot(*(plane[upper_inner] - plane[lower_inner]))
        ratios.append(height / (2 * max(np.hypot(*(plane[outer] - plane[inner])), 1e-6)))
    return float(np.mean(ratios))


def observe(samples: Sequence[Sample]) -> Behaviour:
    """Measure one face over its dense frames.

    Args:
        samples: in time order; frames without a trusted mesh may be missing or None.

    Returns:
        Blinks and rates only where at least two seconds of closely spaced frames were seen.
    """
    trusted = [(sample.time_us, sample.mesh) for sample in samples if sample.mesh is not None and sample.mesh.trusted]
    if not trusted:
        return Behaviour()
    times = np.array([time_us for time_us, _ in trusted], np.int64)
    ratios = np.array([eye_aspect_ratio(mesh.landmarks) for _, mesh in trusted])
    steps = np.diff(times)
    observed = float(steps[steps <= LONGEST_STEP_US].sum()) / MICROSECONDS
    blinks = count_blinks(times, ratios) if observed >= MIN_OBSERVED_SECONDS else None
    return Behaviour(
        blinks=blinks,
        blinks_per_minute=None if blinks is None else blinks * 60 / observed,
        eye_aspect_mean=float(ratios.mean()),
        eye_aspect_deviation=float(ratios.std()),
        landmark_jitter=landmark_jitter(times, np.stack([mesh.landmarks for _, mesh in trusted])),
        observed_seconds=observed,
        eye_aspect=tuple(zip(times.tolist(), ratios.tolist(), strict=True)),
    )


def count_blinks(times: npt.NDArray[np.int64], ratios: Series) -> int:
    """Complete blinks: closed below one share of the open level, open again above a higher one, in time.

    Args:
        times: microseconds, increasing, int64 [n].
        ratios: eye-aspect ratios [n].
    """
    shares = ratios / np.maximum(open_level(times, ratios), 1e-6)
    blinks, closed_at, seen_open = 0, None, False
    previous = times[0] if len(times) else 0
    for time_us, share in zip(times, shares, strict=True):
        if time_us - previous > LONGEST_STEP_US:
            closed_at, seen_open = None, False
        previous = time_us
        if share >= OPEN_ABOVE:
            blinks += closed_at is not None and time_us - closed_at <= LONGEST_BLINK_US
            closed_at, seen_open = None, True
        elif share < CLOSED_BELOW and seen_open and closed_at is None:
            closed_at = time_us
    return int(blinks)


def open_level(times: npt.NDArray[np.int64], ratios: Series) -> Series:
    """The ratio of the open eye around each sample: a high quantile of the three seconds around it."""
    half = LEVEL_WINDOW_US // 2
    starts = np.searchsorted(times, times - half)
    ends = np.searchsorted(times, times + half, side="right")
    return np.array([np.quantile(ratios[start:end], OPEN_QUANTILE) for start, end in zip(starts, ends, strict=True)])


def landmark_jitter(times: npt.NDArray[np.int64], landmarks: FloatArray) -> float | None:
    """Trembling of the mesh that no head makes.

    Every mesh is laid on the first by the best similarity (Umeyama 1991), which removes the head's own motion
    in the plane; what is left is differenced twice over consecutive frames.

    Args:
        times: microseconds, int64 [n].
        landmarks: float32 [n, 478, 3], pixels.

    Returns:
        Root mean square over points, in thousandths of the distance between the eyes' outer corners per frame
        squared; None without three closely spaced frames.
    """
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else 0.0
    regular = (steps <= min(1.5 * usual, LONGEST_STEP_US)) & (steps >= 0.5 * usual)
    triples = np.flatnonzero(regular[:-1] & regular[1:])
    if not len(triples):
        return None
    plane = landmarks[:, :FACE_POINTS, :2].astype(np.float64)
    levelled = _aligned(plane)
    span = np.hypot(*(levelled[0, OUTER_CORNERS[0]] - levelled[0, OUTER_CORNERS[1]]))
    acceleration = levelled[triples] - 2 * levelled[triples + 1] + levelled[triples + 2]
    return float(1000 * np.sqrt(np.mean(np.sum(acceleration**2, axis=2))) / max(span, 1e-6))


def _aligned(plane: Series) -> Series:
    """Lay every shape [n, p, 2] on the first, with complex numbers standing for points of the plane."""
    points = plane[..., 0] + 1j * plane[..., 1]
    centred = points - points.mean(axis=1, keepdims=True)
    factors = (centred.conj() * centred[0]).sum(axis=1) / np.maximum((np.abs(centred) ** 2).sum(axis=1), 1e-12)
    laid = centred * factors[:, None]
    return np.stack([laid.real, laid.imag], axis=-1)
