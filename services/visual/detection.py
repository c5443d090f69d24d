"""Finding faces: YuNet over a batch of pictures, decoded to boxes and points in the picture's own pixels.

Source: Wu, Peng and Yu, "YuNet: A tiny millisecond-level face detector" (2023). Its output is one row for
every cell of three grids (strides 8, 16 and 32 pixels): class and objectness scores, the box centre's
offset and log size, and the offsets of five points, all in strides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from services.visual.batching import ModelCalls

FloatArray = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

MODEL = "face_detector"
STRIDES = (8, 16, 32)
MAX_SIDE = 640
"""Longer side above which the detector reports duplicates, pixels."""
SCORE_THRESHOLD = 0.8
OVERLAP_THRESHOLD = 0.3
"""Intersection over union above which the weaker of two boxes is the same face."""


@dataclass(frozen=True, slots=True)
class Faces:
    """The faces of one picture, most certain first.

    ``boxes`` is float32 [k, 4] (left, top, right, bottom), ``points`` float32 [k, 5, 2] (the person's right
    eye, left eye, nose tip, right and left corner of the mouth), both in pixels of the picture; ``scores``
    is float32 [k] in [0, 1].
    """

    boxes: FloatArray
    points: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.scores)

    def scaled(self, width: float, height: float) -> Faces:
        """The same faces with horizontal coordinates times ``width`` and vertical ones times ``height``."""
        factors = np.array([width, height], np.float32)
        return Faces(self.boxes * np.tile(factors, 2), self.points * factors, self.scores)


@dataclass(frozen=True, slots=True)
class Canvas:
    """How pictures of one size are shown to the detector: scaled down, then padded to multiples of 32."""

    height: int
    width: int
    scaled_height: int
    scaled_width: int

    @classmethod
    def fitting(cls, height: int, width: int, max_side: int = MAX_SIDE) -> Canvas:
        """The canvas of pictures of this size; ``max_side`` is the largest longer side, a multiple of 32."""
        scale = min(1.0, max_side / max(height, width))
        return cls(height, width, max(round(height * scale), 1), max(round(width * scale), 1))

    @property
    def padded_height(self) -> int:
        """Height of the canvas, pixels."""
        return self.scaled_height + -self.scaled_height % STRIDES[-1]

    @property
    def padded_width(self) -> int:
        """Width of the canvas, pixels."""
        return self.scaled_width + -self.scaled_width % STRIDES[-1]

    def draw(self, pictures: Sequence[Picture]) -> Picture:
        """Put uint8 [height, width, 3] pictures on canvases with black to the right and below: uint8 [n, …]."""
        canvases = np.zeros((len(pictures), self.padded_height, self.padded_width, 3), np.uint8)
        for canvas, picture in zip(canvases, pictures, strict=True):
            shown = canvas[: self.scaled_height, : self.scaled_width]
            if shown.shape == picture.shape:
                shown[:] = picture
            else:
                size = (self.scaled_width, self.scaled_height)
                shown[:] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return canvases

    def read(self, outputs: Mapping[str, npt.NDArray[Any]], threshold: float) -> list[Faces]:
        """Decode the detector's outputs on canvases into faces in pixels of the pictures."""
        across, down = self.width / self.scaled_width, self.height / self.scaled_height
        decoded = decode(outputs, self.padded_height, self.padded_width, threshold)
        return [faces.scaled(across, down) for faces in decoded]


def decode(outputs: Mapping[str, npt.NDArray[Any]], height: int, width: int, threshold: float) -> list[Faces]:
    """Read the detector's outputs.

    Args:
        outputs: ``cls``, ``obj`` [n, p, 1], ``bbox`` [n, p, 4], ``kps`` [n, p, 10], float32.
        height: height of the canvas, pixels.
        width: width of the canvas, pixels.
        threshold: least score, [0, 1].

    Returns:
        The faces of each of the n pictures, in pixels of the canvas.
    """
    scores = np.sqrt(np.clip(outputs["cls"][..., 0], 0, 1) * np.clip(outputs["obj"][..., 0], 0, 1))
    cells, strides = _grid(height, width)
    found = []
    for index, row in enumerate(scores):
        kept = np.flatnonzero(row >= threshold)
        kept = kept[np.argsort(-row[kept], kind="stable")]
        stride, cell = strides[kept, None], cells[kept]
        offsets = outputs["bbox"][index, kept]
        centre, size = (cell + offsets[:, :2]) * stride, np.exp(offsets[:, 2:]) * stride
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        points = (cell[:, None] + outputs["kps"][index, kept].reshape(-1, 5, 2)) * stride[:, :, None]
        alone = without_duplicates(boxes, OVERLAP_THRESHOLD)
        found.append(Faces(boxes[alone], points[alone], row[kept][alone]))
    return found


def without_duplicates(boxes: FloatArray, overlap: float) -> list[int]:
    """Indices of boxes [k, 4] that no earlier kept box overlaps by more than ``overlap`` (greedy NMS)."""
    kept: list[int] = []
    for index in range(len(boxes)):
        if not kept or intersection_over_union(boxes[index : index + 1], boxes[kept]).max() <= overlap:
            kept.append(index)
    return kept


def intersection_over_union(first: FloatArray, second: FloatArray) -> FloatArray:
    """Overlap of every box of ``first`` [a, 4] with every box of ``second`` [b, 4]: float32 [a, b] in [0, 1]."""
    start = np.maximum(first[:, None, :2], second[None, :, :2])
    end = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(end - start, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, np.finfo(np.float32).tiny), 0), np.float32)


async def detect(
    calls: ModelCalls,
    pictures: Sequence[Picture],
    *,
    max_side: int = MAX_SIDE,
    threshold: float = SCORE_THRESHOLD,
    batch: int = 8,
) -> list[Faces]:
    """Find the faces of many pictures, batching those of one size.

    Args:
        calls: runs the detector.
        pictures: uint8 [height, width, 3] RGB, of any sizes.
        max_side: longer side to which pictures are scaled down, pixels.
        threshold: least score, [0, 1].
        batch: pictures a call.

    Returns:
        The faces of each picture, in its own pixels.
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_size.setdefault((picture.shape[0], picture.shape[1]), []).append(index)
    found: dict[int, Faces] = {}
    for (height, width), indices in by_size.items():
        alike = [pictures[index] for index in indices]
        canvas = Canvas.fitting(height, width, max_side)
        found.update(zip(indices, await _detect_alike(calls, alike, canvas, threshold, batch), strict=True))
    return [found[index] for index in range(len(pictures))]


async def _detect_alike(
    calls: ModelCalls, pictures: Sequence[Picture], canvas: Canvas, threshold: float, batch: int
) -> list[Faces]:
    """Find the faces of pictures of one size."""

    def prepare(part: Sequence[Picture]) -> dict[str, npt.NDArray[Any]]:
        return {"frames": canvas.draw(part)}

    def finish(_: Sequence[Picture], outputs: Mapping[str, npt.NDArray[Any]]) -> list[Faces]:
        return canvas.read(outputs, threshold)

    return await calls.over(MODEL, pictures, batch=batch, prepare=prepare, finish=finish)


def detect_now(
    run: Callable[[str, Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]],
    pictures: Sequence[Picture],
    *,
    max_side: int = MAX_SIDE,
    threshold: float = SCORE_THRESHOLD,
) -> list[Faces]:
    """The same on the calling thread, one picture a call; for training and measuring.

    Args:
        run: runs a model now, for instance ``EmbeddedEngine.run``.
        pictures: as for ``detect``.
        max_side: as for ``detect``.
        threshold: as for ``detect``.
    """
    found: list[Faces] = []
    for picture in pictures:
        canvas = Canvas.fitting(picture.shape[0], picture.shape[1], max_side)
        found += canvas.read(run(MODEL, {"frames": canvas.draw([picture])}), threshold)
    return found


def _grid(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """Column and row of every cell, float32 [p, 2], and its stride, float32 [p]."""
    cells, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full(rows.size, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
