"""Face crops, cut the same way for training and for serving.

A crop is a square around the detected box, wider by a margin, taken from full-resolution pixels without
rotation: turning a face by interpolation would wash out the traces the classifiers look for.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FACE_MARGIN = 1.1
"""Side of the crop over the longer side of the detected box. The detector's box fills the DFDC training crops
(median 1.0 of their side), so that a wider margin would train on repeated edges and serve real surroundings."""
FACE_CROP_SIZE = 224
"""Side of the crops that the patch gate and the frame classifier take, pixels."""
MIN_FACE_SIZE = 32.0
"""Shorter side of a box below which a face is not scored, pixels."""


def square_crop(
    pixels: npt.NDArray[np.uint8],
    box: npt.NDArray[np.floating] | tuple[float, float, float, float],
    *,
    margin: float = FACE_MARGIN,
    size: int = FACE_CROP_SIZE,
) -> npt.NDArray[np.uint8]:
    """Cut a square around a face and scale it.

    Args:
        pixels: uint8 [height, width, 3].
        box: left, top, right, bottom in pixels.
        margin: side of the square over the longer side of the box.
        size: side of the result, pixels.

    Returns:
        uint8 [size, size, 3]; what lies outside the picture repeats its edge.
    """
    left, top, right, bottom = (float(value) for value in box)
    side = max(right - left, bottom - top) * margin
    height, width = pixels.shape[:2]
    x0 = round((left + right - side) / 2)
    y0 = round((top + bottom - side) / 2)
    span = max(round(side), 1)
    inside = pixels[max(y0, 0) : max(min(y0 + span, height), 1), max(x0, 0) : max(min(x0 + span, width), 1)]
    pads = (max(-y0, 0), max(y0 + span - height, 0), max(-x0, 0), max(x0 + span - width, 0))
    if any(pads):
        inside = np.asarray(cv2.copyMakeBorder(inside, *pads, borderType=cv2.BORDER_REPLICATE), dtype=np.uint8)
    interpolation = cv2.INTER_AREA if span > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(inside, (size, size), interpolation=interpolation), dtype=np.uint8)
