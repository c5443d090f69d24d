"""Meshes of a face that nobody has: outlines where the code looks for them, the rest spread inside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.visual.residuals import EYE_OUTLINES, LIPS, OVAL


def drawn_mesh(centre: tuple[float, float] = (100, 100), size: float = 100.0) -> npt.NDArray[np.float32]:
    """Landmarks [478, 3] of an upright oval face, ``size`` pixels high."""
    random = np.random.default_rng(5)
    mesh = np.zeros((478, 3))
    mesh[:, :2] = random.uniform(-0.25, 0.25, (478, 2))
    mesh[:, 2] = random.uniform(-0.1, 0.1, 478)
    _outline(mesh, OVAL, (0, 0), (0.4, 0.5), -np.pi / 2)
    _outline(mesh, LIPS, (0, 0.25), (0.15, 0.06), np.pi)
    _outline(mesh, EYE_OUTLINES[0], (-0.18, -0.12), (0.08, 0.03), np.pi)
    _outline(mesh, EYE_OUTLINES[1], (0.18, -0.12), (0.08, 0.03), 0)
    mesh[468], mesh[473] = (-0.18, -0.12, 0), (0.18, -0.12, 0)
    mesh *= size
    mesh[:, :2] += centre
    return mesh.astype(np.float32)


def _outline(
    mesh: npt.NDArray[np.float64],
    points: tuple[int, ...],
    centre: tuple[float, float],
    radii: tuple[float, float],
    start: float,
) -> None:
    angles = start + np.linspace(0, 2 * np.pi, len(points), endpoint=False)
    mesh[list(points), 0] = centre[0] + radii[0] * np.cos(angles)
    mesh[list(points), 1] = centre[1] + radii[1] * np.sin(angles)
