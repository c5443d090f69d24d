"""What every stretch of speech goes through before the spoof classifier, at training and at serving.

Silence and loudness tell recordings apart, not voices, so neither may reach the model. Nothing here
filters, quantises or denoises: the cue the model reads lies in weak bins of the spectrum.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.common.media import SAMPLE_RATE

FRAME = SAMPLE_RATE * 25 // 1000
STEP = SAMPLE_RATE * 10 // 1000
TRIM_DECIBELS = 40.0
SHORTEST_SECONDS = 0.3
LONGEST_SECONDS = 6
LOUD_SHARE = 0.6
TARGET_RMS = 0.05


def prepare(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Remove DC, trim quiet ends, keep at most 6 s, and bring to one loudness.

    Both ends are cut up to the first and last 25 ms frame that is within 40 dB of the loudest; then the
    loudest 60 % of frames are scaled to a root mean square of 0.05.

    Args:
        samples: float32 [n], 16 kHz mono.

    Returns:
        float32 [m], 4,800 ≤ m ≤ 96,000; zeros are added at the end of what is shorter than 0.3 s. All zeros
        when the sound is digital silence or shorter than one 25 ms frame.
    """
    if samples.size < FRAME:
        return _lengthened(np.zeros(0, np.float32))
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    power = _frame_power(centred)
    loud = np.flatnonzero(power >= power.max() * 10.0 ** (-TRIM_DECIBELS / 10.0))
    kept = centred[loud[0] * STEP : loud[-1] * STEP + FRAME][: LONGEST_SECONDS * SAMPLE_RATE]
    power = np.sort(_frame_power(kept))
    level = np.sqrt(power[int(power.size * (1.0 - LOUD_SHARE)) :].mean())
    if level == 0.0:
        return _lengthened(np.zeros(kept.size, np.float32))
    return _lengthened(np.asarray(kept * (TARGET_RMS / level), np.float32))


def _lengthened(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.pad(samples, (0, max(round(SHORTEST_SECONDS * SAMPLE_RATE) - samples.size, 0)))


def _frame_power(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total = np.concatenate(([0.0], np.cumsum(samples**2)))
    starts = np.arange(0, samples.size - FRAME + 1, STEP)
    return np.asarray(np.maximum(total[starts + FRAME] - total[starts], 0.0) / FRAME)
