"""Where in a sound somebody speaks, and which stretches of it are worth scoring.

A frame counts as speech when it is near a *voiced* frame: periodic at a pitch of the human voice (the
window-corrected autocorrelation of Boersma 1993), not a single tone, and within half a second of spectra
of other shapes. Silence fails the first test on level, noise on periodicity, tones, hum and buzzers on
shape. Whispering is not found, and song is not told from speech.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.common.evidence import SpeechWindow
from services.common.media import SAMPLE_RATE

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

STEP = SAMPLE_RATE // 100
FRAME = SAMPLE_RATE * 40 // 1000
FFT_LENGTH = 1024
VOICE_BINS = FFT_LENGTH // 4 + 1
"""Only bins up to 4 kHz are looked at; the autocorrelation is that of the sound at 8 kHz."""
VOICE_RATE = SAMPLE_RATE // 2
EMPHASIS_HERTZ = 1000
FRAMES_AT_ONCE = 2000
MICROSECONDS_A_STEP = 10_000

QUIETEST_DECIBELS = -65.0
DYNAMIC_RANGE_DECIBELS = 40.0
LOUD_PERCENTILE = 95.0
LOWEST_PITCH_HERTZ, HIGHEST_PITCH_HERTZ = 65, 420
LEAST_PERIODICITY = 0.5
MOST_TONAL = 0.97
TONE_HALF_WIDTH_HERTZ = 60
BAND_EDGES_HERTZ = (100, 250, 400, 600, 850, 1150, 1500, 1950, 2500, 3150, 4000)
BAND_FLOOR_DECIBELS = 40.0
LEAST_VARIATION_DECIBELS = 2.5
NEIGHBOURHOOD_STEPS = 50
FEWEST_VOICED = 15
REACH_STEPS = 15
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class _Frames:
    """Per 10 ms: level (dB), periodicity [0, 1], share of the strongest tone, and band levels (dB)."""

    level: Floats
    periodicity: Floats
    tonality: Floats
    bands: Floats


def find_speech(samples: npt.NDArray[np.float32]) -> Flags:
    """Which 10 ms steps of a sound are speech.

    Args:
        samples: float32 [n], 16 kHz mono.

    Returns:
        bool [max(0, 1 + (n − 640) // 160)]; step i covers the 40 ms from i · 10 ms on.
    """
    steps = max(0, 1 + (samples.size - FRAME) // STEP)
    if steps == 0:
        return np.zeros(0, np.bool_)
    frames = _measure(samples, steps)
    least = max(float(np.percentile(frames.level, LOUD_PERCENTILE)) - DYNAMIC_RANGE_DECIBELS, QUIETEST_DECIBELS)
    audible = frames.level > least
    voiced = audible & (frames.periodicity > LEAST_PERIODICITY) & (frames.tonality < MOST_TONAL)
    varied = _variation(frames.bands, voiced) > LEAST_VARIATION_DECIBELS
    return audible & _dilated(voiced & varied, REACH_STEPS)


def _measure(samples: npt.NDArray[np.float32], steps: int) -> _Frames:
    """All frame measures, in slices so that an hour of sound needs no more memory than a minute."""
    window = np.hanning(FRAME + 2)[1:-1].astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::STEP]
    own = _autocorrelation(np.abs(np.fft.rfft(window, FFT_LENGTH)[:VOICE_BINS]) ** 2)
    parts = [_measure_slice(views[at : at + FRAMES_AT_ONCE], window, own) for at in range(0, steps, FRAMES_AT_ONCE)]
    level, periodicity, tonality, bands = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _Frames(level, periodicity, tonality, bands)


def _measure_slice(views: Floats, window: Floats, own: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    centred = views - views.mean(1, keepdims=True)
    level = 10 * np.log10((centred**2).mean(1) + TINY)
    power = np.abs(np.fft.rfft(centred * window, FFT_LENGTH)[:, :VOICE_BINS]) ** 2
    total = power.sum(1) + TINY

    # Rumble falls by 6 dB an octave and would look periodic; this slope takes that away.
    hertz = np.arange(VOICE_BINS) * SAMPLE_RATE / FFT_LENGTH
    emphasis = np.minimum(hertz / EMPHASIS_HERTZ, 1.0).astype(np.float32)
    correlation = _autocorrelation(power * emphasis) / own
    periodicity = correlation[:, VOICE_RATE // HIGHEST_PITCH_HERTZ :].max(1)

    half = TONE_HALF_WIDTH_HERTZ * FFT_LENGTH // SAMPLE_RATE
    running = np.cumsum(np.pad(power, ((0, 0), (half + 1, half))), 1)
    tonality = (running[:, 2 * half + 1 :] - running[:, : -2 * half - 1]).max(1) / total

    edges = np.array(BAND_EDGES_HERTZ) * FFT_LENGTH // SAMPLE_RATE
    bands = np.add.reduceat(power, edges, 1)[:, :-1] / np.diff(edges)
    bands = 10 * np.log10(bands / (bands.max(1, keepdims=True) + TINY) + 10 ** (-BAND_FLOOR_DECIBELS / 10))
    return level, periodicity, tonality, bands


def _autocorrelation(power: Floats) -> Floats:
    """Autocorrelation at the lags of a voice from a power spectrum up to 4 kHz, 1 at lag 0."""
    correlation = np.fft.irfft(power, axis=-1)[..., : VOICE_RATE // LOWEST_PITCH_HERTZ]
    return np.asarray(correlation / (correlation[..., :1] + TINY), np.float32)


def _variation(bands: Floats, voiced: Flags) -> Floats:
    """Standard deviation of band levels over voiced frames within half a second, mean over bands, dB [steps]."""
    chosen = voiced[:, None].astype(np.float64)
    count = _around(chosen)
    mean = _around(bands * chosen) / np.maximum(count, 1)
    square = _around(bands.astype(np.float64) ** 2 * chosen) / np.maximum(count, 1)
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0)).mean(1)
    return np.where(count[:, 0] >= FEWEST_VOICED, deviation, 0.0).astype(np.float32)


def _around(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums over the steps within the neighbourhood of each step."""
    reach = NEIGHBOURHOOD_STEPS
    running = np.cumsum(np.pad(values, ((reach + 1, reach), (0, 0))), 0)
    return running[2 * reach + 1 :] - running[: -2 * reach - 1]


def _dilated(flags: Flags, reach: int) -> Flags:
    counts = np.cumsum(np.pad(flags.astype(np.int64), (reach + 1, reach)))
    return np.asarray(counts[2 * reach + 1 :] > counts[: -2 * reach - 1])


def plan_windows(speech: Flags, *, seconds: float) -> tuple[tuple[int, int], ...]:
    """Tile the speech with windows; each begins where speech goes on after the one before it.

    A last window that would be shorter is moved back to full length where the sound allows it.

    Args:
        speech: bool [steps], see find_speech.
        seconds: length of a window.

    Returns:
        (first step, step after the last) of each window, in order.
    """
    length = round(seconds * SAMPLE_RATE / STEP)
    windows: list[tuple[int, int]] = []
    spoken = np.flatnonzero(speech)
    while spoken.size:
        start = int(min(spoken[0], max(speech.size - length, 0)))
        end = min(start + length, speech.size)
        windows.append((start, end))
        spoken = spoken[spoken >= end]
    return tuple(windows)


def describe_window(speech: Flags, window: tuple[int, int], start_us: int) -> SpeechWindow:
    """A planned window on the clip's clock, with its share of speech."""
    start, end = window
    return SpeechWindow(
        start_us=start_us + start * MICROSECONDS_A_STEP,
        end_us=start_us + end * MICROSECONDS_A_STEP,
        speech_fraction=float(speech[start:end].mean()),
    )
