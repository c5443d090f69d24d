"""Faces forged in video without a generator: what generators do to texture and time, done to real clips.

Pairs of a real clip and its forgery share everything but the trace, so that nothing about where a clip came
from can be learnt from them (the idea of self-blended images, Shiohara and Yamasaki 2022, carried over to
video). Every recipe works on whole stretches of frames with the face's landmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from services.visual.residuals import LIPS, OVAL

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

LOWER_FACE = (
    *(58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 454, 323, 4, 93, 234, 132),
)
MOUTH_SPREAD = 1.5
FLOW_GRID = 48
EVERY_POINT = 3
"""Landmarks between those that carry the warp."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames of one face: ``pictures`` uint8 [height, width, 3] of one size, ``landmarks`` float32 [n, 478, 2]."""

    pictures: Sequence[Picture]
    landmarks: Floats

    @property
    def size(self) -> float:
        """Width of the face, pixels."""
        return float(np.median(np.ptp(self.landmarks[:, list(OVAL), 0], axis=1)))


@dataclass(frozen=True, slots=True)
class Synthesis:
    """How a face is made anew from a smaller one, as up-sampling generators do; ``gain`` and ``bias`` by channel."""

    factor: float
    sharpening: float
    shrink: int
    enlarge: int
    gain: Floats
    bias: Floats
    wobble: float
    """Relative change of the factor from frame to frame: generators that work frame by frame are not steady."""

    @classmethod
    def draw(cls, random: np.random.Generator) -> Synthesis:
        """A random one."""
        return cls(
            factor=float(random.uniform(1.3, 2.8)),
            sharpening=float(random.uniform(0.3, 1.5)) if random.random() < 0.5 else 0.0,
            shrink=int(random.choice([cv2.INTER_AREA, cv2.INTER_LINEAR])),
            enlarge=int(random.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])),
            gain=(1 + random.normal(0, 0.03, 3)).astype(np.float32),
            bias=random.normal(0, 1, 3).astype(np.float32),
            wobble=float(random.uniform(0, 0.02)) if random.random() < 0.5 else 0.0,
        )

    def apply(self, picture: Picture, factor: float) -> Floats:
        """Shrink, enlarge and sharpen: float32 of the same shape."""
        height, width = picture.shape[:2]
        small = (max(8, int(width / factor)), max(8, int(height / factor)))
        large = cv2.resize(
            cv2.resize(picture, small, interpolation=self.shrink), (width, height), None, 0, 0, self.enlarge
        )
        made = np.asarray(large, np.float32)
        if self.sharpening:
            made += self.sharpening * (made - np.asarray(cv2.GaussianBlur(made, (0, 0), 1.2), np.float32))
        return made


Recipe = Callable[[Stretch, np.random.Generator], list[Picture]]


def resynthesised(points: Sequence[int], spread: float = 1.0, *, noisy: bool = False) -> Recipe:
    """A recipe that makes the hull of some landmarks anew in every frame and blends it in softly.

    Args:
        points: landmarks whose hull is replaced.
        spread: the hull's size over that of the landmarks.
        noisy: add noise that is independent from frame to frame.
    """

    def forge(stretch: Stretch, random: np.random.Generator) -> list[Picture]:
        synthesis, noise = Synthesis.draw(random), float(random.uniform(0.5, 3)) if noisy else 0.0

        def make(_: int, cut: Picture) -> Floats:
            factor = max(synthesis.factor * (1 + synthesis.wobble * float(random.normal())), 1.05)
            grain = random.normal(0, noise, cut.shape[:2]) if noise else np.zeros(cut.shape[:2])
            made = synthesis.apply(cut, factor) + grain.astype(np.float32)[..., None]
            return made * synthesis.gain + synthesis.bias

        return _blend(stretch, points, spread, make)

    return forge


def interpolated(stretch: Stretch, random: np.random.Generator) -> list[Picture]:
    """Every other face is the mean of its neighbours, as where a generator runs at half the frame rate."""
    synthesis = Synthesis.draw(random)

    def make(index: int, cut: Picture) -> Floats:
        if index % 2 == 0 or index + 1 >= len(stretch.pictures):
            return synthesis.apply(cut, 1 + (synthesis.factor - 1) * 0.4)
        (left, top), (right, bottom) = _bounds(stretch, index)
        beside = [stretch.pictures[index + step][top:bottom, left:right].astype(np.float32) for step in (-1, 1)]
        return np.asarray((beside[0] + beside[1]) / 2, np.float32)

    return _blend(stretch, OVAL, 1.0, make)


def held(stretch: Stretch, random: np.random.Generator) -> list[Picture]:
    """The face stands still for two or three frames at a time while the rest goes on: a re-timed region."""
    every, synthesis = int(random.integers(2, 4)), Synthesis.draw(random)
    centres = stretch.landmarks.mean(axis=1)

    def make(index: int, cut: Picture) -> Floats:
        kept = index - index % every
        across, down = centres[index] - centres[kept]
        matrix = np.array([[1, 0, across], [0, 1, down]], np.float32)
        height, width = stretch.pictures[0].shape[:2]
        moved = cv2.warpAffine(stretch.pictures[kept], matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        (left, top), (right, bottom) = _bounds(stretch, index)
        assert cut.shape[:2] == (bottom - top, right - left)
        return synthesis.apply(np.asarray(moved[top:bottom, left:right], np.uint8), 1.1)

    return _blend(stretch, OVAL, 1.0, make)


def reenacted(stretch: Stretch, random: np.random.Generator) -> list[Picture]:
    """One frame, warped to follow the landmarks of all: a talking head made of a single picture.

    The flow is that of the landmarks, spread by Gaussian weights and faded out away from the face, much like
    the first-order motion model (Siarohin et al. 2019) without its network.
    """
    synthesis, reach = Synthesis.draw(random), float(random.uniform(0.15, 0.5)) * stretch.size
    still = int(random.integers(len(stretch.pictures)))
    picture = np.clip(synthesis.apply(stretch.pictures[still], max(synthesis.factor * 0.7, 1.0)), 0, 255)
    interpolation = int(random.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    landmarks = stretch.landmarks.astype(np.float64)
    for _ in range(int(random.integers(3))):
        landmarks[1:-1] = (landmarks[:-2] + 2 * landmarks[1:-1] + landmarks[2:]) / 4
    height, width = stretch.pictures[0].shape[:2]
    columns, rows = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    frames = []
    for points in landmarks[:, ::EVERY_POINT]:
        flow = _flow(points, points - landmarks[still, ::EVERY_POINT], (height, width), stretch.size * 0.06, reach)
        warped = cv2.remap(
            picture, columns - flow[..., 0], rows - flow[..., 1], interpolation, borderMode=cv2.BORDER_REPLICATE
        )
        frames.append(np.clip(warped, 0, 255).astype(np.uint8))
    return frames


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "lower_face": resynthesised(LOWER_FACE),
        "mouth": resynthesised(LIPS, MOUTH_SPREAD),
        "face": resynthesised(OVAL),
        "noisy_face": resynthesised(OVAL, noisy=True),
        "interpolated": interpolated,
        "held": held,
        "reenacted": reenacted,
    }
)
"""Every way to forge, by name."""


def _bounds(stretch: Stretch, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Left, top and right, bottom of the face with a margin, inside the picture."""
    height, width = stretch.pictures[0].shape[:2]
    points, margin = stretch.landmarks[index], stretch.size * 0.15
    low, high = np.floor(points.min(axis=0) - margin), np.ceil(points.max(axis=0) + margin)
    left, top = (int(value) for value in np.clip(low, 0, [width - 2, height - 2]))
    right, bottom = (int(value) for value in np.clip(high, [left + 2, top + 2], [width, height]))
    return (left, top), (right, bottom)


def _blend(
    stretch: Stretch, points: Sequence[int], spread: float, make: Callable[[int, Picture], Floats]
) -> list[Picture]:
    """Replace the hull of some landmarks in every frame by what ``make`` makes of its surroundings."""
    frames = []
    for index, picture in enumerate(stretch.pictures):
        (left, top), (right, bottom) = _bounds(stretch, index)
        cut = picture[top:bottom, left:right]
        hull = stretch.landmarks[index, list(points), :2] - np.array([left, top], np.float32)
        middle = hull.mean(axis=0)
        mask = np.zeros(cut.shape[:2], np.float32)
        outline = cv2.convexHull(np.round(middle + (hull - middle) * spread).astype(np.int32))
        cv2.fillConvexPoly(mask, outline, 1.0)
        soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), max(stretch.size * 0.04, 1.0)), np.float32)[..., None]
        forged = picture.copy()
        forged[top:bottom, left:right] = np.clip(cut * (1 - soft) + make(index, cut) * soft, 0, 255).astype(np.uint8)
        frames.append(forged)
    return frames


def _flow(
    points: npt.NDArray[np.float64],
    steps: npt.NDArray[np.float64],
    shape: tuple[int, int],
    width: float,
    reach: float,
) -> Floats:
    """Dense flow [height, width, 2] from steps at scattered points."""
    across, down = np.meshgrid(np.linspace(0, shape[1] - 1, FLOW_GRID), np.linspace(0, shape[0] - 1, FLOW_GRID))
    grid = np.stack([across.ravel(), down.ravel()], axis=1)
    distances = ((grid[:, None] - points[None]) ** 2).sum(axis=-1)
    weights = np.exp(-distances / (2 * width**2)) + 1e-9 * np.exp(-distances / (2 * (3 * width) ** 2))
    flow = (weights @ steps) / (weights.sum(axis=1, keepdims=True) + 1e-30)
    flow *= np.exp(-distances.min(axis=1, keepdims=True) / reach**2)
    coarse = flow.reshape(FLOW_GRID, FLOW_GRID, 2).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
