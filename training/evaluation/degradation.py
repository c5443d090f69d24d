"""What happens to pictures on their way to a platform, as conditions of robustness curves.

Each condition has a curve it belongs to and a strength on that curve's axis. It is applied to the whole
picture before faces are looked for, as it would happen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from services.common.media import Frame
from training.audio.channels import DEGRADATIONS, Channel, with_noise
from training.video_codec import through_video_codec

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Condition:
    """One point of a robustness curve: ``apply`` takes the picture and a random generator."""

    name: str
    curve: str
    strength: float
    apply: Callable[[Pixels, np.random.Generator], Pixels]


def jpeg(picture: Pixels, quality: int) -> Pixels:
    """Encode as JPEG and decode; uint8 [height, width, 3] RGB."""
    _, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[:, :, ::-1], dtype=np.uint8)


def downscaled(picture: Pixels, factor: float) -> Pixels:
    """A picture with both sides divided by ``factor``."""
    height, width = picture.shape[:2]
    size = (max(round(width / factor), 8), max(round(height / factor), 8))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def blurred(picture: Pixels, sigma: float) -> Pixels:
    """Gaussian blur; ``sigma`` in pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.uint8)


def noisy(picture: Pixels, sigma: float, random: np.random.Generator) -> Pixels:
    """Gaussian noise; ``sigma`` in grey levels of 255."""
    return np.clip(picture + random.normal(0, sigma, picture.shape), 0, 255).astype(np.uint8)


def video_coded(picture: Pixels, rate_factor: int) -> Pixels:
    """One picture through H.264 at a constant rate factor."""
    return through_video_codec([Frame(0, picture)], rate_factor)[0].pixels


def _conditions() -> list[Condition]:
    found = [
        Condition(f"jpeg_{quality}", "JPEG quality", quality, lambda x, _, q=quality: jpeg(x, q))  # type: ignore[misc]
        for quality in (90, 70, 50, 30)
    ]
    found += [
        Condition(f"downscale_{factor}", "downscale factor", factor, lambda x, _, f=factor: downscaled(x, f))  # type: ignore[misc]
        for factor in (1.5, 2.0, 3.0)
    ]
    found += [
        Condition(f"blur_{sigma}", "blur sigma (pixels)", sigma, lambda x, _, s=sigma: blurred(x, s))  # type: ignore[misc]
        for sigma in (1.0, 2.0, 3.0)
    ]
    found += [
        Condition(f"noise_{sigma}", "noise sigma (of 255)", sigma, lambda x, r, s=sigma: noisy(x, s, r))  # type: ignore[misc]
        for sigma in (4, 8, 16)
    ]
    found += [
        Condition(f"h264_{factor}", "H.264 rate factor", factor, lambda x, _, f=factor: video_coded(x, f))  # type: ignore[misc]
        for factor in (23, 32, 40)
    ]
    return found


PICTURE_CONDITIONS: Sequence[Condition] = tuple(_conditions())


def _noise(decibels: float) -> Channel:
    return lambda samples, random: with_noise(samples, decibels, random)


SOUND_CONDITIONS: Mapping[str, Channel] = {
    **DEGRADATIONS,
    "noise_30db": _noise(30.0),
    "noise_10db": _noise(10.0),
}
"""Conditions of sound, by name."""
NOISE_CURVE: Mapping[float, str] = {30.0: "noise_30db", 20.0: "noise_20db", 10.0: "noise_10db"}
"""Signal-to-noise ratio in decibels → condition."""
