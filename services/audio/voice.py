"""Voice features for synchrony: a log-mel spectrogram on the clip's clock."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.common.evidence import VoiceSequence
from services.common.media import SAMPLE_RATE, AudioTrack

BANDS = 40
WINDOW = 400
STEP = 160
FFT_LENGTH = 512
FLOOR = 1e-8
MICROSECONDS = 1_000_000

# Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
LINEAR_HERTZ_PER_MEL = 200.0 / 3.0
BREAK_HERTZ = 1000.0
LOG_STEP = np.log(6.4) / 27.0


def mel_filter_bank(
    bands: int, fft_length: int, sample_rate: int, low_hertz: float, high_hertz: float
) -> npt.NDArray[np.float64]:
    """Triangular filters of equal area, evenly spaced on Slaney's mel scale.

    Args:
        bands: number of filters.
        fft_length: samples of the transform whose power spectrum is filtered.
        sample_rate: samples a second.
        low_hertz: lower edge of the first filter.
        high_hertz: upper edge of the last filter, at most half the sample rate.

    Returns:
        float64 [bands, fft_length // 2 + 1]; each filter integrates to 1 over frequency in hertz.
    """
    edges = _to_hertz(np.linspace(_to_mel(low_hertz), _to_mel(high_hertz), bands + 2))
    bins = np.arange(fft_length // 2 + 1) * sample_rate / fft_length
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangle = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    return np.asarray(np.maximum(triangle, 0.0) * 2.0 / (right - left))


class VoiceAnalyzer:
    """Computes log-mel rows: 40 bands, one row every 10 ms, 25 ms Hann windows."""

    def __init__(self) -> None:
        self._filters = mel_filter_bank(BANDS, FFT_LENGTH, SAMPLE_RATE, 0.0, SAMPLE_RATE / 2).T
        self._window = np.hanning(WINDOW + 1)[:-1]

    def sequence(self, audio: AudioTrack) -> VoiceSequence | None:
        """Log-mel energies of a sound on the clip's clock.

        Returns:
            Rows float32 [1 + (n - 400) // 160, 40], natural log of mel energy + 1e-8; ``start_us`` is the
            centre of the first row's window. None when the sound is shorter than one window.
        """
        if audio.samples.size < WINDOW:
            return None
        frames = np.lib.stride_tricks.sliding_window_view(audio.samples, WINDOW)[::STEP]
        power = np.abs(np.fft.rfft(frames * self._window, FFT_LENGTH)) ** 2
        values = np.log(power @ self._filters + FLOOR).astype(np.float32)
        centre = WINDOW * MICROSECONDS // (2 * SAMPLE_RATE)
        return VoiceSequence(audio.start_us + centre, STEP * MICROSECONDS // SAMPLE_RATE, values)


def _to_mel(hertz: float) -> float:
    if hertz < BREAK_HERTZ:
        return hertz / LINEAR_HERTZ_PER_MEL
    return float(BREAK_HERTZ / LINEAR_HERTZ_PER_MEL + np.log(hertz / BREAK_HERTZ) / LOG_STEP)


def _to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    knee = BREAK_HERTZ / LINEAR_HERTZ_PER_MEL
    linear = mel * LINEAR_HERTZ_PER_MEL
    return np.where(mel < knee, linear, BREAK_HERTZ * np.exp(LOG_STEP * (mel - knee)))
