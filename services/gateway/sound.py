"""From FFmpeg's sound to one mono track at 16 kHz on the clip's clock, in floating point throughout."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from services.common.errors import LimitExceededError
from services.common.media import SAMPLE_RATE, AudioTrack
from services.gateway.containers import microseconds
from services.gateway.sampling import MICROSECONDS

GAP_US = 50_000
"""Where timestamps and sample count part by more than this, microseconds, the timestamps win."""

_Signature = tuple[str, str, int]


class _Run:
    """Sound without a gap and in one format, resampled as it comes."""

    def __init__(self, start_us: int, signature: _Signature) -> None:
        self.start_us = start_us
        self.signature = signature
        self._seconds = 0.0
        # Channels are averaged rather than added, so that speech on both keeps its level.
        self._resampler = av.AudioResampler("fltp", "mono", SAMPLE_RATE, options={"rematrix_maxval": "1.0"})
        self._blocks: list[npt.NDArray[np.float32]] = []
        self.damaged = False

    @property
    def end_us(self) -> int:
        return self.start_us + round(self._seconds * MICROSECONDS)

    def add(self, frame: av.AudioFrame) -> None:
        self._seconds += frame.samples / frame.sample_rate
        self._take(self._resampler.resample(frame))

    def finish(self) -> npt.NDArray[np.float32]:
        try:
            self._take(self._resampler.resample(None))
        except av.FFmpegError:  # a frame that it refused earlier has left it without an end
            self.damaged = True
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.float32)

    def _take(self, frames: list[av.AudioFrame]) -> None:
        self._blocks += [np.array(frame.to_ndarray()[0], dtype=np.float32) for frame in frames]


class SoundAssembler:
    """Puts decoded sound on one clock. Gaps become silence; where stretches overlap the later one stays."""

    def __init__(self, time_base: Fraction, max_duration_us: int) -> None:
        # Frames that come out when the decoder is drained forget their own.
        self._time_base = time_base
        self._max_duration_us = max_duration_us
        self._runs: list[_Run] = []

    @property
    def damaged(self) -> bool:
        """Whether the end of a stretch could not be resampled."""
        return any(run.damaged for run in self._runs)

    @property
    def end_us(self) -> int | None:
        """Where the sound ends so far, microseconds of the container's clock; None before any."""
        return max((run.end_us for run in self._runs), default=None)

    def add(self, frame: av.AudioFrame) -> None:
        """Take in one decoded frame.

        Raises:
            LimitExceededError: the sound spans more than is allowed (reason DURATION_TOO_LONG).
            FFmpegError, ValueError: the frame cannot be resampled.
        """
        signature = (frame.format.name, frame.layout.name, frame.sample_rate)
        run = self._runs[-1] if self._runs else None
        start_us = self._start_of(frame, run)
        if run is None or run.signature != signature or abs(start_us - run.end_us) > GAP_US:
            self._check_span(start_us)
            run = _Run(start_us, signature)
            self._runs.append(run)
        run.add(frame)
        self._check_span(run.end_us)

    def finish(self) -> AudioTrack | None:
        """The whole track, or None when no sound came; ``start_us`` is on the container's clock."""
        if not self._runs:
            return None
        start_us = min(run.start_us for run in self._runs)
        pieces = [(round((run.start_us - start_us) * SAMPLE_RATE / MICROSECONDS), run.finish()) for run in self._runs]
        samples = np.zeros(max(first + len(piece) for first, piece in pieces), np.float32)
        for first, piece in pieces:
            samples[first : first + len(piece)] = piece
        np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return AudioTrack(start_us, samples) if len(samples) else None

    def _start_of(self, frame: av.AudioFrame, run: _Run | None) -> int:
        if frame.pts is not None:
            return microseconds(frame.pts, frame.time_base or self._time_base)
        return run.end_us if run is not None else 0

    def _check_span(self, time_us: int) -> None:
        first = self._runs[0].start_us if self._runs else time_us
        if abs(time_us - first) > self._max_duration_us:
            limit = self._max_duration_us // MICROSECONDS
            raise LimitExceededError(f"the clip is longer than {limit} seconds", reason="DURATION_TOO_LONG")
