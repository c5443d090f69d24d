"""Decoded media as it travels between services."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
"""Samples a second of all sound between services."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: ``pixels`` is uint8 RGB [height, width, 3], shown at ``time_us``."""

    time_us: int
    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Mono sound: ``samples`` is float32 [n] at SAMPLE_RATE, nominal range [-1, 1]; never quantised."""

    start_us: int
    samples: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the container held; reported, never scored. Fields are those of the contract."""

    container: str = ""
    video_codec: str = ""
    audio_codec: str = ""
    width: int = 0
    height: int = 0
    frame_rate: float = 0.0
    duration_us: int = 0
    rotation_degrees: int = 0
    size_bytes: int = 0
    sha256: str = ""
    frames_sampled: int = 0
    partial: bool = False
    still: bool = False
    interrupted: bool = False
