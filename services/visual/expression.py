"""How a face moves: one row of numbers a frame, of head, gaze, lids, brows, lips and jaw.

In a living face these move together in a way of their own (Agarwal and Farid 2019, "Protecting world leaders
against deep fakes", tell people by it); generators move the lips and leave the rest behind, or move all as one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.visual.detection import FloatArray

STEADY = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 10, 151, 9, 8, 234, 454, 127, 356)
"""Points that move with the skull rather than with the expression."""
CHANNELS = (
    *("mouth_open", "mouth_width", "right_lids", "left_lids", "right_brow", "left_brow", "jaw"),
    *("right_gaze_across", "right_gaze_down", "left_gaze_across", "left_gaze_down"),
    *("head_across", "head_down", "head_scale", "head_roll", "head_yaw", "head_pitch"),
)
"""Numbers a row; lengths are in heights of the face, angles in radians, scale is logarithmic."""
REFINEMENTS = 2


def expression_rows(landmarks: FloatArray) -> FloatArray:
    """Read the channels off the meshes of one face.

    Every mesh is laid on the mean one by the similarity that fits its steady points best, so that the
    expression is free of where the head is, and the similarity itself is the head's motion in the plane.

    Args:
        landmarks: float32 [n, 478, 3], in pixels, in time order.

    Returns:
        float32 [n, 17].
    """
    meshes = landmarks.astype(np.float64)
    shape = meshes[..., 0] + 1j * meshes[..., 1]
    steady = shape[:, STEADY]
    centre = steady.mean(axis=1)
    factor = _similarities(steady - centre[:, None])
    size = np.abs((shape[:, 10] - shape[:, 152]) / factor).mean()
    face = (shape - centre[:, None]) / (factor * size)[:, None]
    depth = meshes[..., 2] / (np.abs(factor) * size)[:, None]
    at = centre / (np.abs(factor).mean() * size)
    eyes = (face[:, 33] + face[:, 133]) / 2, (face[:, 263] + face[:, 362]) / 2
    gaze = face[:, 468] - eyes[0], face[:, 473] - eyes[1]
    columns = [
        np.abs(face[:, 13] - face[:, 14]),
        np.abs(face[:, 61] - face[:, 291]),
        np.abs(face[:, 159] - face[:, 145]) / np.maximum(np.abs(face[:, 33] - face[:, 133]), 1e-6),
        np.abs(face[:, 386] - face[:, 374]) / np.maximum(np.abs(face[:, 362] - face[:, 263]), 1e-6),
        (face[:, 105] - eyes[0]).imag,
        (face[:, 334] - eyes[1]).imag,
        (face[:, 152] - face[:, 1]).imag,
        *(part for one in gaze for part in (one.real, one.imag)),
        *(at.real, at.imag, np.log(np.abs(factor)), np.angle(factor)),
        depth[:, 234] - depth[:, 454],
        depth[:, 10] - depth[:, 152],
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _similarities(points: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    """Scale and rotation, as complex factors [n], from the mean shape to each centred shape [n, p]."""
    mean = points[0]
    for _ in range(REFINEMENTS):
        factors = _factors(points, mean)
        mean = (points / factors[:, None]).mean(axis=0)
    return _factors(points, mean)


def _factors(points: npt.NDArray[np.complex128], mean: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    factors = (points * mean.conj()).sum(axis=1) / max(float((np.abs(mean) ** 2).sum()), 1e-12)
    return np.asarray(np.where(np.abs(factors) < 1e-9, 1e-9, factors))  # noqa: PLR2004 - a degenerate mesh
