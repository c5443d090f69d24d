"""Constant-Q cepstral coefficients (Todisco, Delgado and Evans 2017), as one torch module that exports to ONNX.

A constant-Q transform keeps the ratio of frequency to bandwidth the same in every bin, so that it is fine at
low frequencies, where the harmonics of speech lie, and quick at high ones. Octaves are computed one after the
other on sound that is halved in rate in between, all with the same two sets of kernels (Schörkhuber and
Klapuri 2010).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import firwin
from torch import nn
from torch.nn import functional

from services.common.media import SAMPLE_RATE

OCTAVES = 7
BINS = 24
"""Bins of an octave."""
HIGHEST_HERTZ = 8000.0 * 2.0 ** (-1 / BINS)
"""Centre of the highest bin; the lowest lies at 62.5 Hz."""
QUALITY = 1.0 / (2.0 ** (1 / BINS) - 1.0)
"""Ratio of a bin's centre to its bandwidth."""
HOP = 128
HALVING_TAPS = 63
LINEAR_POINTS = 128
COEFFICIENTS = 30
FLOOR = 1e-7
SMALLEST_POWER = 1e-20


def centres() -> npt.NDArray[np.float64]:
    """Centre frequencies of all bins in hertz, from high to low: float64 [168]."""
    return np.asarray(HIGHEST_HERTZ * 2.0 ** (-np.arange(OCTAVES * BINS) / BINS))


def kernels(hertz: npt.NDArray[np.float64], sample_rate: float) -> npt.NDArray[np.float32]:
    """Hann-windowed complex exponentials of ``QUALITY`` periods, centred, each of unit gain at its centre.

    Returns:
        float32 [2 · bins, taps]: all cosines, then all sines; taps is odd.
    """
    lengths = QUALITY * sample_rate / hertz
    half = int(np.ceil(lengths.max() / 2))
    time = np.arange(-half, half + 1)[None, :]
    window = np.where(np.abs(time) <= lengths[:, None] / 2, 0.5 + 0.5 * np.cos(2 * np.pi * time / lengths[:, None]), 0)
    window /= window.sum(1, keepdims=True)
    phase = 2 * np.pi * hertz[:, None] / sample_rate * time
    return np.concatenate([window * np.cos(phase), -window * np.sin(phase)]).astype(np.float32)


class ConstantQ(nn.Module):
    """Power of 168 bins, from high to low, every 128 samples; frames are centred, zeros lie beyond the ends.

    Halving the rate rounds lengths up, so that all octaves have the same number of frames.
    """

    def __init__(self) -> None:
        super().__init__()
        octave = centres()[:BINS]
        # The first octave lies up to half the sample rate; every later one in the lower half of what is left
        # of the band, where halving the rate has neither damped nor folded anything.
        self.register_buffer("first", torch.from_numpy(kernels(octave, SAMPLE_RATE))[:, None])
        self.register_buffer("later", torch.from_numpy(kernels(octave / 2, SAMPLE_RATE))[:, None])
        halving = firwin(HALVING_TAPS, 0.5).astype(np.float32)
        self.register_buffer("halving", torch.from_numpy(halving)[None, None])

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N, T] to power [N, 1 + (T - 1) // 128, 168]."""
        sound, hop = samples[:, None], HOP
        parts = [_power(sound, self.first, hop), _power(sound, self.later, hop)]
        for _ in range(OCTAVES - 2):
            sound = functional.conv1d(sound, self.halving, stride=2, padding=HALVING_TAPS // 2)
            hop //= 2
            parts.append(_power(sound, self.later, hop))
        return torch.cat(parts, 1).transpose(1, 2)


def _power(sound: torch.Tensor, kernel: torch.Tensor, hop: int) -> torch.Tensor:
    """Sound [N, 1, samples] to [N, bins, frames]."""
    values = functional.conv1d(sound, kernel, stride=hop, padding=kernel.shape[2] // 2)
    bins = kernel.shape[0] // 2
    return values[:, :bins] ** 2 + values[:, bins:] ** 2


def cepstral_matrix() -> npt.NDArray[np.float32]:
    """From log power in bins to cepstra: resample to evenly spaced frequencies, then the cosine transform.

    Returns:
        float32 [168, 30].
    """
    hertz = centres()[::-1]
    even = np.linspace(hertz[0], hertz[-1], LINEAR_POINTS)
    resample = np.stack([np.interp(even, hertz, unit) for unit in np.eye(hertz.size)])[::-1]
    order, point = np.arange(COEFFICIENTS), np.arange(LINEAR_POINTS)[:, None]
    cosine = np.cos(np.pi * order * (point + 0.5) / LINEAR_POINTS) * np.sqrt(2.0 / LINEAR_POINTS)
    cosine[:, 0] /= np.sqrt(2.0)
    return np.asarray(resample @ cosine, np.float32)


class ConstantQCepstra(nn.Module):
    """30 cepstra a frame less their mean over the sound, so that loudness and colour of the channel cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = ConstantQ()
        self.register_buffer("matrix", torch.from_numpy(cepstral_matrix()))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N, T] to cepstra [N, 1 + (T - 1) // 128, 30]."""
        power = self.transform(samples)
        floor = FLOOR * power.mean((1, 2), keepdim=True) + SMALLEST_POWER
        cepstra = torch.log(power + floor) @ self.matrix
        return cepstra - cepstra.mean(1, keepdim=True)
