"""One sampling plan for all visual branches: a survey of the whole clip and one dense window.

Works on the presentation times that the container lists, so variable frame rates need no special case.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from services.common.media import SAMPLE_RATE

MICROSECONDS = 1_000_000
_BYTES_A_PIXEL = 3
_BYTES_A_SECOND = 4 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How many pictures the branches get, and how large.

    The survey spreads ``survey_frames`` over the clip at native resolution, longer side at most
    ``survey_side`` pixels. The dense window is the middle ``dense_us`` microseconds at no more than
    ``dense_rate`` pictures a second, longer side at most ``dense_side`` and area at most ``dense_pixels``.
    """

    survey_frames: int = 16
    survey_side: int = 1920
    dense_us: int = 10 * MICROSECONDS
    dense_rate: int = 25
    dense_side: int = 640
    dense_pixels: int = 250_000

    def most_bytes(self, seconds: float) -> int:
        """What the samples and the sound of the largest clip of this length hold in memory, bytes."""
        dense = self.dense_us * self.dense_rate // MICROSECONDS
        pixels = self.survey_frames * self.survey_side**2 + dense * self.dense_pixels
        return pixels * _BYTES_A_PIXEL + round(seconds * _BYTES_A_SECOND)

    def survey_times(self, times: Sequence[int]) -> tuple[int, ...]:
        """Times of the survey: the picture on display at the middle of each of equal stretches.

        Args:
            times: presentation times, microseconds, strictly increasing.

        Returns:
            Some of ``times``, increasing; all of them when there are few.
        """
        if len(times) <= self.survey_frames:
            return tuple(times)
        span = _end(times) - times[0]
        middles = (times[0] + (2 * step + 1) * span // (2 * self.survey_frames) for step in range(self.survey_frames))
        return tuple(dict.fromkeys(times[bisect_right(times, middle) - 1] for middle in middles))

    def dense_times(self, times: Sequence[int]) -> tuple[int, ...]:
        """Times of the dense window: the middle of the clip, thinned to the plan's rate.

        Args:
            times: presentation times, microseconds, strictly increasing.

        Returns:
            Some of ``times``, increasing.
        """
        if not times:
            return ()
        start = times[0] + max(_end(times) - times[0] - self.dense_us, 0) // 2
        step = MICROSECONDS // self.dense_rate
        # Containers round times to their tick; a quarter of a step absorbs that without raising the rate.
        slack, due = step // 4, start
        chosen: list[int] = []
        for time in times[bisect_left(times, start) : bisect_left(times, start + self.dense_us)]:
            if time >= due - slack:
                chosen.append(time)
                due = due + step if time < due + step else time + step
        return tuple(chosen)


def _end(times: Sequence[int]) -> int:
    """When the last picture goes, taking it to stay as long as the average one."""
    if len(times) < 2:  # noqa: PLR2004
        return times[0]
    return times[-1] + (times[-1] - times[0]) // (len(times) - 1)


def fit(width: int, height: int, *, max_side: int, max_pixels: int | None = None) -> tuple[int, int]:
    """The largest size of the same shape within bounds; even numbers when scaled down, as chroma needs."""
    scale = min(1.0, max_side / max(width, height))
    if max_pixels is not None:
        scale = min(scale, (max_pixels / (width * height)) ** 0.5)
    if scale == 1.0:
        return width, height
    return max(int(width * scale) // 2 * 2, 2), max(int(height * scale) // 2 * 2, 2)
