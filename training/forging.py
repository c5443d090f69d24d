"""Forgeries of sound and timing, made from decoded real clips: dubs, shifted sound, stills with speech.

They are made on decoded media in the services' own types, so that what does not change (the faces of a dub,
the voice of a still) need not be decoded or scored twice. Everything follows from names and a seed: the same
clip is forged the same way in every run, by training and by evaluation alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from services.common.media import SAMPLE_RATE, AudioTrack, Frame

MICROSECONDS = 1_000_000
SMALLEST_SHIFT_US = 200_000
LARGEST_SHIFT_US = 600_000
FADE_SAMPLES = SAMPLE_RATE // 100
"""Length of the cross-fade where a donor's sound is repeated to fill a longer clip: 10 ms."""


class Forgery(StrEnum):
    """Kinds of forged clips, by the names that reports use."""

    DUBBED = "dubbed"
    SHIFTED = "shifted"
    STILL = "still_with_speech"


@dataclass(frozen=True, slots=True)
class Source:
    """A real clip with sound that may lend it to another: its name, its identity, its length in seconds."""

    name: str
    group: str
    seconds: float


def generator(*keys: object) -> np.random.Generator:
    """A random generator that depends on the keys alone (names, kinds, seeds)."""
    digest = hashlib.sha256("\x1f".join(str(key) for key in keys).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def donors(sources: Sequence[Source], seed: int = 0) -> Mapping[str, str]:
    """Whose sound each clip gets when it is dubbed: a clip of another group, drawn by name and seed.

    Clips at least as long as the dubbed one are preferred, since a shorter sound must be repeated.

    Args:
        sources: real clips with sound; names are unique.
        seed: another seed gives other pairs.

    Returns:
        Name → name of the donor; clips without any stranger among the sources are left out.
    """
    chosen = {}
    for clip in sources:
        strangers = sorted(
            (other for other in sources if other.group != clip.group), key=lambda other: (other.group, other.name)
        )
        enough = [other for other in strangers if other.seconds >= clip.seconds]
        pool = enough or sorted(strangers, key=lambda other: -other.seconds)[:3]
        if pool:
            # A group with many clips must not lend its voice to everybody: draw the group first.
            groups = sorted({other.group for other in pool})
            random = generator("donor", clip.name, seed)
            group = groups[int(random.integers(len(groups)))]
            members = [other for other in pool if other.group == group]
            chosen[clip.name] = members[int(random.integers(len(members)))].name
    return chosen


def dub(own: AudioTrack, other: AudioTrack, random: np.random.Generator) -> AudioTrack:
    """A stranger's sound on the clock of one's own, at the same root mean square.

    Args:
        own: the sound that is replaced; gives start, length and loudness.
        other: the sound that replaces it; a random stretch if it is longer, repeated if it is shorter.
        random: of the stretch.

    Returns:
        As many samples as ``own`` has.
    """
    length = own.samples.size
    stretch = _repeated(other.samples, length)
    start = int(random.integers(stretch.size - length + 1))
    stretch = stretch[start : start + length]
    level, wanted = _loudness(stretch), _loudness(own.samples)
    gain = wanted / level if level > 0 and wanted > 0 else 1.0
    return AudioTrack(own.start_us, np.clip(stretch * np.float32(gain), -1, 1).astype(np.float32))


def shift_of(name: str, seed: int = 0) -> int:
    """By how much a clip's sound is shifted: 0.2 to 0.6 s late (positive) or early, in microseconds."""
    random = generator("shift", name, seed)
    size = int(random.integers(SMALLEST_SHIFT_US, LARGEST_SHIFT_US + 1))
    return size if random.random() < 0.5 else -size


def shift(audio: AudioTrack, offset_us: int) -> AudioTrack:
    """Sound that comes late (positive offset) or early, without reaching outside the time it had before.

    Args:
        audio: the sound.
        offset_us: microseconds; smaller in size than the sound is long.

    Returns:
        The part of the moved sound that still falls into the old stretch of time.

    Raises:
        ValueError: nothing of the sound would be left.
    """
    cut = round(abs(offset_us) * SAMPLE_RATE / MICROSECONDS)
    if cut >= audio.samples.size:
        raise ValueError("the sound is shorter than its shift")
    if offset_us >= 0:
        return AudioTrack(audio.start_us + offset_us, audio.samples[: audio.samples.size - cut])
    # What would begin before the clip is lost; the rest begins where the sound began.
    return AudioTrack(audio.start_us, audio.samples[cut:])


def freeze(frames: Sequence[Frame], chosen: int) -> tuple[Frame, ...]:
    """The picture of one frame shown at the times of all.

    Args:
        frames: decoded pictures.
        chosen: index of the one that stays.
    """
    return tuple(replace(frame, pixels=frames[chosen].pixels) for frame in frames)


def still_index(name: str, count: int, seed: int = 0) -> int:
    """Which of ``count`` frames of a clip stays when it is frozen: one of the middle half."""
    random = generator("still", name, seed)
    return int(random.integers(count // 4, max(count - count // 4, count // 4 + 1)))


def _loudness(samples: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0


def _repeated(samples: npt.NDArray[np.float32], length: int) -> npt.NDArray[np.float32]:
    """At least ``length`` samples: the sound again and again, cross-faded where it starts anew."""
    if samples.size >= length:
        return samples
    if not samples.any():
        return np.zeros(length, np.float32)
    fade = min(FADE_SAMPLES, samples.size // 2)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    result = samples
    while result.size < length:
        joint = result[result.size - fade :] * (1 - ramp) + samples[:fade] * ramp
        result = np.concatenate([result[: result.size - fade], joint, samples[fade:]])
    return result
