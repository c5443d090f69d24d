"""Short-time spectra and the small matrix tools that all spectral statistics share, as torch modules."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

FLOOR = 1e-7
"""Share of the mean power added inside logarithms. The cue sits in weak bins: 1e-4 costs 5–8 points."""

SMALLEST_POWER = 1e-20
"""Keeps the logarithm of digital silence finite; far below anything that prepared speech holds."""

ROUNDING = 1e-3


class Spectrum(NamedTuple):
    """Real and imaginary part, each [N, frames, bins]. Complex tensors are spelt out because ONNX has none."""

    real: torch.Tensor
    imaginary: torch.Tensor

    def power(self) -> torch.Tensor:
        """Squared magnitude."""
        return self.real * self.real + self.imaginary * self.imaginary

    def turned_back_by(self, other: Spectrum) -> Spectrum:
        """This times the conjugate of the other."""
        return Spectrum(
            self.real * other.real + self.imaginary * other.imaginary,
            self.imaginary * other.real - self.real * other.imaginary,
        )

    def part(self, axis: int, start: int, drop: int) -> Spectrum:
        """Without ``start`` entries at the beginning of an axis and ``drop`` at its end."""
        size = self.real.shape[axis] - start - drop
        return Spectrum(self.real.narrow(axis, start, size), self.imaginary.narrow(axis, start, size))


class ShortTimeSpectrum(nn.Module):
    """Hann-windowed spectra, without padding of the ends.

    Windows are put together from whole blocks, which as a graph is one lookup for each block instead of
    one for each sample.
    """

    def __init__(self, window: int, hop: int, fft: int) -> None:
        super().__init__()
        self.block = math.gcd(window, hop)
        self.stride, self.fft = hop // self.block, fft
        self.register_buffer("within", torch.arange(window // self.block))
        self.register_buffer("window", torch.hann_window(window))

    def forward(self, samples: torch.Tensor) -> Spectrum:
        """Samples [N, T] to spectra [N, frames, fft // 2 + 1]."""
        blocks = samples.unfold(1, self.block, self.block)
        frames = (blocks.shape[1] - self.within.shape[0]) // self.stride + 1
        chosen = torch.arange(frames, device=samples.device)[:, None] * self.stride + self.within
        pieces = blocks.index_select(1, chosen.flatten()).reshape(samples.shape[0], frames, -1)
        values = torch.fft.rfft(pieces * self.window, self.fft)
        return Spectrum(values.real, values.imag)


def band_matrix(bins: int, bands: int) -> npt.NDArray[np.float32]:
    """Equal bands over bins 1 … bins, with fractional edges.

    Returns:
        float32 [bins + 1, bands]; column b holds the share of each bin that lies in band b, scaled to sum
        to 1. Row 0, the constant component, is in no band.
    """
    edges = np.arange(bands + 1) * (bins / bands)
    lower, upper = np.arange(bins)[:, None], np.arange(1, bins + 1)[:, None]
    overlap = np.clip(np.minimum(upper, edges[1:]) - np.maximum(lower, edges[:-1]), 0.0, None)
    matrix = np.zeros((bins + 1, bands), np.float32)
    matrix[1:] = overlap / overlap.sum(0)
    return matrix


def smoothing_matrix(size: int, width: int) -> npt.NDArray[np.float32]:
    """Running mean over ``width`` neighbours as a matrix, float32 [size, size]; fewer at the ends."""
    distance = np.abs(np.arange(size)[:, None] - np.arange(size)[None, :])
    inside = (distance <= width // 2).astype(np.float32)
    return inside / inside.sum(0, keepdims=True)


def running_sum(values: torch.Tensor, axis: int, width: int) -> torch.Tensor:
    """Sum over ``width`` neighbours, as if zeros lay beyond the ends; nine are three sums of three."""
    padding = [0, 0] * (values.dim() - 1 - axis) + [width // 2, width // 2]
    total = functional.pad(values, padding)
    for taps, step in ((3, 1), (3, 3)) if width == 9 else ((width, 1),):
        size = total.shape[axis] - (taps - 1) * step
        parts = [total.narrow(axis, tap * step, size) for tap in range(taps)]
        total = sum(parts[1:], parts[0])
    return total


def log_level(power: torch.Tensor, floor: float = FLOOR) -> torch.Tensor:
    """Natural logarithm of power [N, frames, bins], floored at about ``floor`` times the sound's mean."""
    # Clamped rather than added to: the ONNX exporter drops a sum with so small a constant.
    return torch.log(power + torch.clamp(floor * power.mean((1, 2), keepdim=True), min=SMALLEST_POWER))


def ordered(energy: torch.Tensor) -> torch.Tensor:
    """Energies [N, frames] from quiet to loud."""
    return torch.sort(energy, dim=1).values


def at_share(sorted_energy: torch.Tensor, share: float) -> torch.Tensor:
    """The lowest of the energies of which at least ``share`` of all intervals lie below: [N, 1]."""
    last = torch.ones_like(sorted_energy[0]).sum() - 1
    rank = torch.ceil(share * last - ROUNDING).long().reshape(1)
    return sorted_energy.index_select(1, rank)
