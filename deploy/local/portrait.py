"""A face whose every blink is known: scikit-image's portrait of Eileen Collins, brought to life by warping.

The photograph is NASA's and in the public domain; it ships inside scikit-image. Lids and lips are drawn over
it, the head sways a little. Nothing is learnt and nothing is random but the sway, which its seed decides, so a
clip made of these frames has a truth that a test can ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Points = tuple[tuple[float, float], ...]

VIEW_CENTRE = (222.0, 122.0)
"""Middle of the part of the portrait that is shown, portrait pixels."""
VIEW_HEIGHT = 210.0
"""Height of the part of the portrait that is shown, portrait pixels."""
CLOSING_SECONDS = 0.08
SHUT_SECONDS = 0.10
OPENING_SECONDS = 0.12
JAW_DROP = 7.0
"""How far the lower lip moves when the mouth is wide open, portrait pixels."""
JAW_WIDTH = 24.0
LIP_TOP, LIP_BOTTOM, JAW_END = 143.0, 150.0, 204.0
MOUTH_MIDDLE = 223.0


@dataclass(frozen=True, slots=True)
class Line:
    """Points of a curve, portrait pixels."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def at(self, x: Floats) -> Floats:
        """Height of the curve at some columns."""
        return np.interp(x, self.x, self.y).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Eye:
    """One eye of the portrait, its curves found once with the face landmarker."""

    upper_lid: Line
    lower_lid: Line
    brow: float


EYES = (
    Eye(
        Line(
            (195.8, 196.6, 197.7, 199.7, 203.1, 206.6, 210.1, 212.6, 213.8),
            (100.9, 100.1, 99.3, 98.3, 97.9, 98.4, 100.1, 102.3, 103.7),
        ),
        Line(
            (195.8, 197.3, 198.8, 201.1, 204.5, 207.8, 211.0, 213.0, 213.8),
            (100.9, 102.1, 102.9, 103.7, 104.2, 104.0, 103.8, 103.9, 103.7),
        ),
        brow=91.0,
    ),
    Eye(
        Line(
            (237.2, 238.6, 241.3, 245.0, 248.7, 252.0, 254.0, 255.1, 255.8),
            (105.0, 103.6, 101.7, 100.3, 100.2, 101.0, 102.2, 103.2, 104.0),
        ),
        Line(
            (237.2, 238.1, 240.1, 243.1, 246.6, 250.0, 252.5, 254.2, 255.8),
            (105.0, 105.2, 105.5, 106.0, 106.5, 106.4, 105.9, 105.1, 104.0),
        ),
        brow=93.5,
    ),
)


def render_portrait(
    seconds: float,
    fps: float = 25.0,
    blink_times: Sequence[float] = (),
    *,
    width: int = 640,
    height: int = 360,
    mouth: Callable[[float], float] | None = None,
    sway: float = 1.0,
    seed: int = 0,
) -> Iterator[Picture]:
    """Render a talking portrait frame by frame.

    Args:
        seconds: length of the clip.
        fps: frames a second; below about 15 a blink may fall between frames.
        blink_times: seconds at which the eyes are shut, each the middle of one complete blink of 0.3 s.
        width: pixels across.
        height: pixels down.
        mouth: opening in [0, 1] at a time in seconds; the smile stays as it is without it.
        sway: how much the head moves; 0 keeps it still, 1 moves it by about a fiftieth of the height.
        seed: decides the phases of the sway.

    Yields:
        uint8 [height, width, 3] RGB pictures, round(seconds * fps) of them.
    """
    face = _Puppet(width, height)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 4)
    for index in range(round(seconds * fps)):
        time = index / fps
        closed = max((lid_closure(time - blink) for blink in blink_times), default=0.0)
        opened = min(max(mouth(time), 0.0), 1.0) if mouth is not None else 0.0
        yield face.draw(closed, opened, _head_motion(time, phases, sway, width, height))


def lid_closure(offset: float) -> float:
    """How far the lids are shut, [0, 1], at ``offset`` seconds from the middle of a blink."""
    shut = SHUT_SECONDS / 2
    side = CLOSING_SECONDS if offset < 0 else OPENING_SECONDS
    return 1.0 - _smooth((abs(offset) - shut) / side)


def _smooth(position: float) -> float:
    """0 up to 0, 1 from 1, without corners between."""
    clipped = min(max(position, 0.0), 1.0)
    return clipped * clipped * (3 - 2 * clipped)


def _head_motion(time: float, phases: npt.NDArray[Any], sway: float, width: int, height: int) -> npt.NDArray[Any]:
    """The similarity that moves the still picture, float64 [2, 3]."""
    across, down, tilt, nod = np.sin(2 * np.pi * np.array([0.23, 0.31, 0.17, 0.13]) * time + phases) * sway
    motion = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), 1.5 * tilt, 1 + 0.01 * nod), np.float64)
    motion[:, 2] += np.array([across, down]) * height / 50
    return motion


class _Puppet:
    """The portrait at the size of the clip, with maps for its lids and its jaw worked out once."""

    def __init__(self, width: int, height: int) -> None:
        from skimage import data  # noqa: PLC0415 - only needed where a portrait is rendered

        self._scale = height / VIEW_HEIGHT
        self._corner = np.array(VIEW_CENTRE) - np.array([width, height]) / (2 * self._scale)
        portrait: Picture = data.astronaut()  # type: ignore[no-untyped-call]
        place = np.array(
            [[self._scale, 0, -self._corner[0] * self._scale], [0, self._scale, -self._corner[1] * self._scale]]
        )
        self._still = np.asarray(
            cv2.warpAffine(
                portrait,
                place,
                (width, height),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        self._x = columns / np.float32(self._scale) + np.float32(self._corner[0])
        self._y = rows / np.float32(self._scale) + np.float32(self._corner[1])
        self._jaw = self._jaw_field()

    def draw(self, closed: float, opened: float, motion: npt.NDArray[Any]) -> Picture:
        """One frame; ``closed`` and ``opened`` in [0, 1] are of the lids and of the mouth."""
        source = self._y.copy()
        if opened > 0:
            source -= np.float32(opened) * self._jaw
        if closed > 0:
            for eye in EYES:
                self._close(eye, source, closed)
        frame = self._still
        if opened > 0 or closed > 0:
            rows = (source - np.float32(self._corner[1])) * np.float32(self._scale)
            columns = (self._x - np.float32(self._corner[0])) * np.float32(self._scale)
            frame = np.asarray(cv2.remap(frame, columns, rows, cv2.INTER_LINEAR), np.uint8)
        size = (frame.shape[1], frame.shape[0])
        moved = cv2.warpAffine(frame, motion, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(moved, np.uint8)

    def _close(self, eye: Eye, source: Floats, closed: float) -> None:
        """Draw the skin between brow and upper lid down over the eye; ``source`` is where each pixel comes from."""
        inside = (self._x[0] > eye.upper_lid.x[0]) & (self._x[0] < eye.upper_lid.x[-1])
        x = self._x[0, inside]
        lid = eye.upper_lid.at(x)
        edge = lid + np.float32(closed) * (eye.lower_lid.at(x) - lid)
        y = self._y[:, inside]
        skin = (y > eye.brow) & (y < edge)
        stretched = eye.brow + (y - eye.brow) * (lid - eye.brow) / np.maximum(edge - eye.brow, np.float32(1e-3))
        source[:, inside] = np.where(skin, stretched, source[:, inside])

    def _jaw_field(self) -> Floats:
        """How far each pixel moves down with an open mouth: most in the middle, less towards the chin's end."""
        near = np.exp(-(((self._x - MOUTH_MIDDLE) / JAW_WIDTH) ** 2))
        rising = np.clip((self._y - LIP_TOP) / (LIP_BOTTOM + JAW_DROP - LIP_TOP), 0, 1)
        falling = np.clip((JAW_END - self._y) / (JAW_END - LIP_BOTTOM - JAW_DROP), 0, 1)
        return np.asarray(JAW_DROP * near * np.minimum(rising, falling), np.float32)
