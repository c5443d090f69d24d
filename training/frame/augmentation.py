"""What platforms and cameras do to pictures, done to both classes alike."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from training.frame.blending import shift_hue

Pixels = npt.NDArray[np.uint8]
Step = Callable[[Pixels, np.random.Generator], Pixels]


def degrade(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Apply a random selection of changes in random order; a fifth of the pictures stay as they are.

    Args:
        pixels: uint8 [height, width, 3] RGB.
        random: source of every choice; the same state gives the same changes.

    Returns:
        uint8 of the same shape.
    """
    if random.random() < 0.2:
        return pixels
    chosen = [step for step, chance in _STEPS if random.random() < chance]
    for index in random.permutation(len(chosen)):
        pixels = chosen[int(index)](pixels, random)
    return recompress(pixels, random) if random.random() < 0.5 else pixels


def recompress(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Encode and decode: JPEG of quality 30 to 95, or sometimes WebP, which is a VP8 key frame."""
    quality = int(random.uniform(30, 95))
    if random.random() < 0.15:
        return _through(pixels, ".webp", cv2.IMWRITE_WEBP_QUALITY, max(quality - 15, 10))
    return _through(pixels, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)


def rescale(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Scale down to 35 to 95 % and back, with random filters."""
    height, width = pixels.shape[:2]
    share = random.uniform(0.35, 0.95)
    filters = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
    size = (max(round(width * share), 16), max(round(height * share), 16))
    small = cv2.resize(pixels, size, interpolation=filters[int(random.integers(4))])
    if random.random() < 0.3:
        small = recompress(np.asarray(small, dtype=np.uint8), random)
    restored = cv2.resize(small, (width, height), interpolation=filters[int(random.integers(1, 4))])
    return np.asarray(restored, dtype=np.uint8)


def blur(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Gaussian or motion blur of up to a few pixels."""
    if random.random() < 0.7:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), random.uniform(0.3, 1.6)), dtype=np.uint8)
    length = int(random.integers(2, 6))
    kernel = np.zeros((length, length), dtype=np.float32)
    if random.random() < 0.5:
        kernel[length // 2, :] = 1 / length
    else:
        np.fill_diagonal(kernel, 1 / length)
    return np.asarray(cv2.filter2D(pixels, -1, kernel), dtype=np.uint8)


def sharpen(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Unsharp masking, as phones do."""
    amount = random.uniform(0.2, 1.2)
    soft = cv2.GaussianBlur(pixels, (0, 0), random.uniform(0.7, 2.0))
    return np.asarray(cv2.addWeighted(pixels, 1 + amount, soft, -amount, 0), dtype=np.uint8)


def add_noise(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Gaussian noise of 1 to 10 levels, per channel or shared by the channels."""
    channels = 3 if random.random() < 0.5 else 1
    noise = random.standard_normal((*pixels.shape[:2], channels), dtype=np.float32) * random.uniform(1, 10)
    return np.asarray(np.clip(pixels + noise, 0, 255), dtype=np.uint8)


def change_colour(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Hue, saturation, brightness, contrast and gamma; sometimes grey."""
    changed = shift_hue(pixels, random, hue=6, saturation=0.35, value=0.2)
    gamma = random.uniform(0.75, 1.33)
    contrast, brightness = random.uniform(0.8, 1.2), random.uniform(-20, 20)
    levels = np.clip(255 * (np.arange(256) / 255) ** gamma * contrast + brightness, 0, 255)
    changed = np.asarray(cv2.LUT(changed, levels.astype(np.uint8)), dtype=np.uint8)
    if random.random() < 0.06:
        changed = np.repeat(cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    return changed


def jitter_box(box: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    """A detector's box, a little moved and scaled: by up to 5 % of its side, and by 0.9 to 1.12."""
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    centre = centre + random.uniform(-0.05, 0.05, 2) * float(size.max())
    size = size * random.uniform(0.9, 1.12)
    return np.concatenate([centre - size / 2, centre + size / 2]).astype(np.float32)


def _through(pixels: Pixels, suffix: str, parameter: int, quality: int) -> Pixels:
    _, encoded = cv2.imencode(suffix, pixels[:, :, ::-1], [parameter, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(np.asarray(decoded)[:, :, ::-1], dtype=np.uint8)


_STEPS: tuple[tuple[Step, float], ...] = (
    (change_colour, 0.5),
    (rescale, 0.4),
    (blur, 0.2),
    (sharpen, 0.1),
    (add_noise, 0.2),
    (recompress, 0.5),
)
