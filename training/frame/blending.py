"""Forgeries made from real faces: self-blended and cross-identity blends inside landmark hulls.

A detector trained on them learns what every blend leaves behind (a boundary, two colour and sharpness
statistics, shifted features) instead of the habits of one generator. Self-blending: Shiohara & Yamasaki,
"Detecting Deepfakes with Self-Blended Images", CVPR 2022; cross-identity blending: Li et al., "Face X-ray
for More General Face Forgery Detection", CVPR 2020. The lower-face hull imitates lip-sync generators, which
paste a mouth of low resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float32]
Mask = npt.NDArray[np.float32]

_JAW = (234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454)
_BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
_MOUTH = (61, 291, 0, 17, 57, 287, 164, 18)
_LOWER = (*_JAW[3:18], 2, 98, 327, 205, 425)
_CORE = (*_BROWS, *_MOUTH, 50, 280, 123, 352)
_MOUTH_AND_CHIN = (*_MOUTH, 98, 327, 2, 205, 425, 212, 432, 149, 152, 378)
ALIGNMENT_POINTS = (33, 133, 362, 263, 1, 2, 61, 291, 152, 234, 454)
"""Eye corners, nose, mouth corners, chin and cheeks of the 478-point mesh: they place one face on another."""

HULLS: dict[str, tuple[int, ...] | None] = {
    "face": None,
    "below_brows": (*_BROWS, *_JAW),
    "core": _CORE,
    "lower": _LOWER,
    "mouth": _MOUTH_AND_CHIN,
}
"""Landmarks whose convex hull bounds a region; None takes all."""
_HULL_CHANCES = (0.35, 0.25, 0.15, 0.13, 0.12)


@dataclass(frozen=True, slots=True)
class Face:
    """A picture with its landmarks: uint8 [height, width, 3]; float32 [478, 2] in its pixels."""

    pixels: Pixels
    landmarks: Points


def self_blend(face: Face, random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """A real picture and a forgery of it, blended with a transformed copy of itself.

    Colour and sharpness of either the inserted copy or the base are changed, so that neither change alone
    tells the two apart.

    Args:
        face: a real face.
        random: source of every choice.

    Returns:
        The base (still real) and the forgery, both uint8 of the picture's shape.
    """
    region = random.choice(list(HULLS), p=_HULL_CHANCES)
    base, inserted = face.pixels, face.pixels
    if random.random() < 0.5:
        inserted = change_statistics(inserted, random)
    else:
        base = change_statistics(base, random)
    mask = blend_mask(face, str(region), random)
    inserted, mask = _displace(inserted, mask, random)
    if region in {"mouth", "lower"} and random.random() < 0.5:
        inserted = _lower_resolution(inserted, random, 0.25, 0.7)
    return base, blend(base, inserted, mask)


def cross_blend(face: Face, donor: Face, random: np.random.Generator) -> Pixels:
    """A forgery: the donor's face warped onto this one, matched in colour and blended inside a hull.

    Args:
        face: the face that is kept outside the hull.
        donor: another person's face, best in a similar pose.
        random: source of every choice.

    Returns:
        uint8 of the face's shape.
    """
    region = random.choice(["face", "below_brows", "core"], p=(0.4, 0.35, 0.25))
    height, width = face.pixels.shape[:2]
    points = list(ALIGNMENT_POINTS)
    matrix = _similarity(donor.landmarks[points], face.landmarks[points])
    warped = cv2.warpAffine(donor.pixels, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    mask = blend_mask(face, str(region), random)
    inserted = _match_colour(np.asarray(warped, dtype=np.uint8), face.pixels, mask, float(random.uniform(0.6, 1.0)))
    if random.random() < 0.4:
        inserted = change_statistics(inserted, random)
    return blend(face.pixels, inserted, mask)


def blend(base: Pixels, inserted: Pixels, mask: Mask) -> Pixels:
    """Weighted sum: ``mask`` [height, width] in [0, 1] is the share of ``inserted``."""
    share = mask[:, :, None]
    mixed = base.astype(np.float32) * (1 - share) + inserted.astype(np.float32) * share
    return np.asarray(np.clip(mixed + 0.5, 0, 255), dtype=np.uint8)


def blend_mask(face: Face, region: str, random: np.random.Generator) -> Mask:
    """A soft mask of a landmark hull, deformed, grown or shrunk, and blurred.

    Args:
        face: the face to be covered.
        region: a name in ``HULLS``.
        random: source of every choice.

    Returns:
        float32 [height, width] in [0, 1]; its peak is the blend ratio, 0.25 to 1.
    """
    height, width = face.pixels.shape[:2]
    chosen = HULLS[region]
    points = face.landmarks if chosen is None else face.landmarks[list(chosen)]
    hull = cv2.convexHull(np.round(points).astype(np.int32))
    mask = np.zeros((height, width), dtype=np.float32)
    cv2.fillConvexPoly(mask, hull, 1.0, lineType=cv2.LINE_AA)
    extent = float(np.ptp(face.landmarks[:, 0]))
    mask = np.asarray(_warp(mask, _smooth_field(mask.shape, extent * random.uniform(0.0, 0.06), random)), np.float32)
    kernel = _odd(extent * random.uniform(0.02, 0.12))
    mask = np.asarray(cv2.GaussianBlur(mask, (kernel, kernel), 0), dtype=np.float32)
    edge = random.uniform(0.1, 0.9)
    mask = np.clip((mask - edge * 0.5) / (1 - edge * 0.5), 0, 1).astype(np.float32)
    kernel = _odd(extent * random.uniform(0.02, 0.15))
    mask = np.asarray(cv2.GaussianBlur(mask, (kernel, kernel), 0), dtype=np.float32)
    peak = float(mask.max())
    ratio = random.choice((0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0))
    return mask * np.float32(ratio / peak) if peak > 0 else mask


def change_statistics(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Change colour and sharpness mildly: channel shift, hue, contrast; lower resolution or sharpening."""
    changed = pixels
    if random.random() < 0.6:
        shift = random.uniform(-20, 20, 3)
        changed = np.clip(changed.astype(np.float32) + shift.astype(np.float32), 0, 255).astype(np.uint8)
    if random.random() < 0.5:
        changed = shift_hue(changed, random, hue=8, saturation=0.25, value=0.15)
    if random.random() < 0.5:
        scale, shift_all = random.uniform(0.85, 1.15), random.uniform(-15, 15)
        changed = np.asarray(cv2.convertScaleAbs(changed, alpha=scale, beta=shift_all), dtype=np.uint8)
    if random.random() < 0.5:
        return _lower_resolution(np.asarray(changed, dtype=np.uint8), random, 0.3, 0.9)
    amount = random.uniform(0.2, 1.0)
    soft = cv2.GaussianBlur(changed, (0, 0), random.uniform(0.6, 1.5))
    return np.asarray(cv2.addWeighted(changed, 1 + amount, soft, -amount, 0), dtype=np.uint8)


def shift_hue(pixels: Pixels, random: np.random.Generator, *, hue: float, saturation: float, value: float) -> Pixels:
    """Shift hue (in units of 2 degrees) and scale saturation and value by 1 ± the given shares."""
    planes = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.float32)
    planes[:, :, 0] = (planes[:, :, 0] + random.uniform(-hue, hue)) % 180
    planes[:, :, 1] *= random.uniform(1 - saturation, 1 + saturation)
    planes[:, :, 2] *= random.uniform(1 - value, 1 + value)
    return np.asarray(cv2.cvtColor(np.clip(planes, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB), dtype=np.uint8)


def pose_vector(landmarks: Points) -> Points:
    """Landmark shape without place and size, float32 [22]: near vectors mean similar poses."""
    points = landmarks[list(ALIGNMENT_POINTS)]
    centred = points - points.mean(axis=0)
    return np.asarray((centred / max(float(np.linalg.norm(centred)), 1e-6)).ravel(), dtype=np.float32)


def _displace(inserted: Pixels, mask: Mask, random: np.random.Generator) -> tuple[Pixels, Mask]:
    """Move and scale what is inserted, a little, by one affine map, and bend it; the mask moves along."""
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-1.5, 1.5), random.uniform(0.95, 1.05))
    matrix[:, 2] += random.uniform(-0.03, 0.03) * width, random.uniform(-0.02, 0.02) * height
    size = (width, height)
    moved = cv2.warpAffine(inserted, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    shifted = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_LINEAR)
    if random.random() < 0.4:
        field = _smooth_field(mask.shape, width * random.uniform(0.0, 0.012), random)
        moved = np.asarray(_warp(moved, field), dtype=np.uint8)
    return np.asarray(moved, dtype=np.uint8), np.asarray(shifted, dtype=np.float32)


def _smooth_field(shape: tuple[int, ...], amplitude: float, random: np.random.Generator) -> Points:
    """A smooth random displacement, float32 [height, width, 2], of about ``amplitude`` pixels."""
    coarse = random.standard_normal((5, 5, 2)).astype(np.float32) * np.float32(amplitude)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _warp(values: npt.NDArray[Any], field: Points) -> npt.NDArray[Any]:
    rows, columns = np.indices(values.shape[:2], dtype=np.float32)
    return np.asarray(
        cv2.remap(
            values,
            columns + field[:, :, 0],
            rows + field[:, :, 1],
            interpolation=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
    )


def _lower_resolution(pixels: Pixels, random: np.random.Generator, low: float, high: float) -> Pixels:
    """Scale down by a random share and back."""
    height, width = pixels.shape[:2]
    share = random.uniform(low, high)
    small = cv2.resize(pixels, (max(int(width * share), 8), max(int(height * share), 8)), interpolation=cv2.INTER_AREA)
    way_back = cv2.INTER_LINEAR if random.random() < 0.5 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(small, (width, height), interpolation=way_back), dtype=np.uint8)


def _similarity(source: Points, target: Points) -> npt.NDArray[np.float64]:
    """Least-squares rotation, scale and shift [2, 3] from one set of points to another (Umeyama 1991)."""
    centre, aim = source.mean(axis=0), target.mean(axis=0)
    here, there = (source - centre).astype(np.float64), (target - aim).astype(np.float64)
    power = max(float((here**2).sum()), 1e-9)
    cosine = float((here * there).sum()) / power
    sine = float((here[:, 0] * there[:, 1] - here[:, 1] * there[:, 0]).sum()) / power
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, aim - turn @ centre])


def _match_colour(pixels: Pixels, reference: Pixels, mask: Mask, strength: float) -> Pixels:
    """Give the pixels under the mask the reference's mean and deviation in CIELAB (Reinhard 2001)."""
    weights = mask / max(float(mask.sum()), 1e-6)
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).astype(np.float32)
    aim = cv2.cvtColor(reference, cv2.COLOR_RGB2LAB).astype(np.float32)
    mean, aim_mean = (np.einsum("hw,hwc->c", weights, planes) for planes in (lab, aim))
    spread, aim_spread = (
        np.sqrt(np.einsum("hw,hwc->c", weights, (planes - middle) ** 2)) + 1e-3
        for planes, middle in ((lab, mean), (aim, aim_mean))
    )
    matched = (lab - mean) * np.clip(aim_spread / spread, 0.5, 2.0) + aim_mean
    mixed = np.clip(lab + strength * (matched - lab), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB), dtype=np.uint8)


def _odd(value: float) -> int:
    return max(int(value) | 1, 3)
