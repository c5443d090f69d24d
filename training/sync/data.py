"""Lips and voices to learn from: real clips on the common clock, segments of them, and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.fusion.clock import SILENCE
from training.sync.network import LARGEST_LAG

Rows = npt.NDArray[np.float32]
SEGMENT = 50
"""Slots of a training segment: two seconds."""
BANDS = 40


@dataclass(frozen=True, slots=True)
class TalkingClip:
    """Lips float32 [slots, motion width] and voice float32 [slots, voice width] of one clip.

    ``lag_known`` is False where the source itself is known to be off by an unmeasured number of slots.
    """

    name: str
    group: str
    motion: Rows
    voice: Rows
    lag_known: bool

    @property
    def slots(self) -> int:
        """Length on the common clock."""
        return int(self.motion.shape[0])


@dataclass(frozen=True, slots=True)
class Batch:
    """Segments: ``motion`` [n, SEGMENT, width], ``voice`` [n, SEGMENT + 2 * LARGEST_LAG, width], groups [n]."""

    motion: Rows
    voice: Rows
    groups: npt.NDArray[np.int64]


class Sampler:
    """Draws augmented segments, every group equally often."""

    def __init__(self, clips: Sequence[TalkingClip], random: np.random.Generator) -> None:
        self._clips = clips
        self._random = random
        groups = sorted({clip.group for clip in clips})
        self._members = [[at for at, clip in enumerate(clips) if clip.group == group] for group in groups]

    def batch(self, size: int) -> Batch:
        """Segments of as many different groups as there are, then again."""
        rounds = -(-size // len(self._members))
        order = np.concatenate([self._random.permutation(len(self._members)) for _ in range(rounds)])[:size]
        owners = [int(self._random.choice(self._members[group])) for group in order]
        pairs = [self._segment(self._clips[owner]) for owner in owners]
        return Batch(np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs]), order)

    def _segment(self, clip: TalkingClip) -> tuple[Rows, Rows]:
        start = int(self._random.integers(0, max(clip.slots - SEGMENT, 0) + 1))
        motion = _window(clip.motion, start, SEGMENT, edge=True)
        voice = _window(clip.voice, start - LARGEST_LAG, SEGMENT + 2 * LARGEST_LAG, edge=False)
        return augment_motion(motion, self._random), augment_voice(voice, self._random)


def _window(rows: Rows, start: int, length: int, *, edge: bool) -> Rows:
    """A stretch of rows; outside them the edge repeats, or silence."""
    index = np.arange(start, start + length)
    window = rows[np.clip(index, 0, rows.shape[0] - 1)].copy()
    if not edge:
        window[(index < 0) | (index >= rows.shape[0])] = SILENCE
    return window


def augment_motion(motion: Rows, random: np.random.Generator) -> Rows:
    """Another face saying the same: mirrored, wider or narrower, larger or smaller gestures, noisier points."""
    points = motion.reshape(motion.shape[0], -1, 2)
    centre = points.mean(axis=0, keepdims=True)
    gestures = (points - centre) * random.uniform(0.7, 1.4)
    slow = random.normal(0, 0.01, 2) * np.linspace(-1, 1, motion.shape[0])[:, None]
    if random.random() < 0.5:
        gestures = gestures * np.array([-1.0, 1.0]) if random.random() < 0.5 else gestures
    noise = random.normal(0, random.uniform(0, 0.004), gestures.shape)
    moved = centre * random.uniform(0.9, 1.1, 2) + gestures + slow[:, None, :] + noise
    return np.asarray(moved.reshape(motion.shape), dtype=np.float32)


def augment_voice(voice: Rows, random: np.random.Generator) -> Rows:
    """Another microphone: a smooth equaliser, a band limit, a noise floor."""
    rows = voice.reshape(voice.shape[0], -1, BANDS).astype(np.float64)
    knots = random.normal(0, 1.5, 6)
    equaliser = np.interp(np.linspace(0, 5, BANDS), np.arange(6), knots)
    rows = rows + equaliser
    if random.random() < 0.3:
        rows = np.where(np.arange(BANDS) < random.integers(20, BANDS), rows, rows.min())
    if random.random() < 0.5:
        floor = np.percentile(rows, random.uniform(5, 60)) + random.normal(0, 0.5, rows.shape)
        rows = np.logaddexp(rows, floor)
    return np.asarray(rows.reshape(voice.shape), dtype=np.float32)
