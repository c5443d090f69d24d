"""What lips did, for synchrony: one row of numbers a dense frame, free of where the head is and how it tilts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.common.evidence import MotionSequence
from services.visual.behaviour import OUTER_CORNERS, Sample

OUTER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
LIPS = OUTER_LIP + INNER_LIP
WIDTH = 2 * len(LIPS)
"""Numbers a row: x and y of each lip point."""


def lip_motion(track_id: int, samples: Sequence[Sample]) -> MotionSequence | None:
    """Rows of lip positions of one face.

    The line between the eyes' outer corners becomes the unit: its middle is the origin, its direction the
    x axis and its length 1.

    Args:
        track_id: the face.
        samples: in time order; those without a trusted mesh are left out.

    Returns:
        float32 [rows, 80], or None when no mesh could be trusted.
    """
    trusted = [(sample.time_us, sample.mesh) for sample in samples if sample.mesh is not None and sample.mesh.trusted]
    if not trusted:
        return None
    meshes = np.stack([mesh.landmarks[:, :2] for _, mesh in trusted])
    return MotionSequence(track_id, tuple(time_us for time_us, _ in trusted), lip_rows(meshes))


def lip_rows(meshes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Lip positions of meshes [n, 478, 2 or more] in the frame of the eyes: float32 [n, 80]."""
    points = meshes[..., 0].astype(np.float64) + 1j * meshes[..., 1]
    right, left = (points[:, corner, None] for corner in OUTER_CORNERS)
    axis = left - right
    axis = np.where(np.abs(axis) < 1e-6, 1e-6, axis)  # noqa: PLR2004 - a degenerate mesh
    lips = (points[:, LIPS] - (left + right) / 2) / axis
    return np.stack([lips.real, lips.imag], axis=-1).reshape(len(meshes), WIDTH).astype(np.float32)
