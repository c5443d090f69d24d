"""Statistics of the spectrum's fine structure, as one torch module that exports to ONNX.

What vocoders and neural synthesis leave behind is weak, fine detail: how much each narrow band fluctuates
from frame to frame, how it stands out from its neighbours, how its residual is distributed. Colour and
loudness of the channel cancel in every one of these numbers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

FLOOR = 1e-7
"""Share of the mean power added inside logarithms. The cue sits in weak bins: 1e-4 costs 5–8 points."""

TEXTURE_BANDS = 80
TEXTURE_WINDOW, TEXTURE_HOP, TEXTURE_FFT = 400, 160, 512
TEXTURE_SMOOTHING = 9
QUIET_SHARE = 0.4
RATIO_FLOOR = 1e-3

RESIDUAL_BANDS = 40
RESIDUAL_RESOLUTIONS = ((256, 128), (512, 128), (1024, 256))
FREQUENCY_SMOOTHING = 9
TIME_SMOOTHING = 5
SMALLEST_VARIANCE = 1e-12

FEATURES = 4 * TEXTURE_BANDS + 7 * RESIDUAL_BANDS * len(RESIDUAL_RESOLUTIONS)


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
    """Running mean over ``width`` neighbours as a matrix, float32 [size, size]; rows at the ends average fewer."""
    distance = np.abs(np.arange(size)[:, None] - np.arange(size)[None, :])
    inside = (distance <= width // 2).astype(np.float32)
    return inside / inside.sum(0, keepdims=True)


class PowerSpectrum(nn.Module):
    """Short-time power spectrum with a Hann window and no padding of the ends.

    Windows are put together from whole blocks, which as a graph is one lookup for each block instead of
    one for each sample.
    """

    def __init__(self, window: int, hop: int, fft: int) -> None:
        super().__init__()
        self.block = math.gcd(window, hop)
        self.stride, self.fft = hop // self.block, fft
        self.register_buffer("within", torch.arange(window // self.block))
        self.register_buffer("window", torch.hann_window(window))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N, T] to power [N, frames, fft // 2 + 1]."""
        blocks = samples.unfold(1, self.block, self.block)
        frames = (blocks.shape[1] - self.within.shape[0]) // self.stride + 1
        chosen = torch.arange(frames, device=samples.device)[:, None] * self.stride + self.within
        pieces = blocks.index_select(1, chosen.flatten()).reshape(samples.shape[0], frames, -1)
        spectrum = torch.fft.rfft(pieces * self.window, self.fft)
        return spectrum.real**2 + spectrum.imag**2


class Texture(nn.Module):
    """Per band: how much the log spectrum varies, stands out from its neighbours, and moves (4 × 80)."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = PowerSpectrum(TEXTURE_WINDOW, TEXTURE_HOP, TEXTURE_FFT)
        self.register_buffer("bands", torch.from_numpy(band_matrix(TEXTURE_FFT // 2, TEXTURE_BANDS)))
        smooth = torch.from_numpy(smoothing_matrix(TEXTURE_BANDS, TEXTURE_SMOOTHING))
        self.register_buffer("detail", torch.eye(TEXTURE_BANDS) - smooth)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N, T] to features [N, 320]."""
        power = self.spectrum(samples) @ self.bands
        level = torch.log(power + FLOOR * power.mean((1, 2), keepdim=True))
        level = level - level.mean(2, keepdim=True)
        energy = power.mean(2)
        quiet = torch.sort(energy, dim=1).values
        rank = torch.ceil(QUIET_SHARE * torch.ones_like(energy[0]).cumsum(0)[-1:] - QUIET_SHARE).long()
        loud = (energy >= quiet[:, rank]).to(level.dtype)[:, :, None]
        count = loud.sum(1)
        detail = level @ self.detail
        mean_detail = (detail * loud).sum(1) / count
        moving = (level[:, 2:] - level[:, :-2]) / 2
        return torch.cat(
            [
                _deviation(level, loud, count),
                mean_detail,
                _deviation(detail, loud, count),
                moving.std(1, correction=0) / (level.std(1, correction=0) + RATIO_FLOOR),
            ],
            1,
        )


def _deviation(values: torch.Tensor, weight: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    mean = (values * weight).sum(1, keepdim=True) / count[:, None]
    return torch.sqrt((((values - mean) ** 2) * weight).sum(1) / count)


class Residual(nn.Module):
    """How the log spectrum's residuals are distributed at one resolution, in 40 bands (7 × 40)."""

    def __init__(self, window: int, hop: int) -> None:
        super().__init__()
        bins = window // 2
        self.spectrum = PowerSpectrum(window, hop, window)
        self.register_buffer("bands", torch.from_numpy(band_matrix(bins, RESIDUAL_BANDS)))
        self.register_buffer("neighbours", _running_sum(torch.ones(bins + 1), 0, FREQUENCY_SMOOTHING))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N, T] to features [N, 280]."""
        power = self.spectrum(samples)
        level = torch.log(power + FLOOR * power.mean((1, 2), keepdim=True))
        fine = level - _running_sum(level, 2, FREQUENCY_SMOOTHING) / self.neighbours
        frames = torch.ones_like(level[:1, :, :1])
        quick = level - _running_sum(level, 1, TIME_SMOOTHING) / _running_sum(frames, 1, TIME_SMOOTHING)
        return torch.cat([*self._shape(fine), self._persistence(fine), *self._shape(quick)], 1)

    def _shape(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Standard deviation, skewness and mean|r|/std per band, each [N, 40]."""
        square = residual * residual
        first = residual.mean(1) @ self.bands
        second = square.mean(1) @ self.bands
        third = (square * residual).mean(1) @ self.bands
        variance = torch.clamp(second - first**2, min=SMALLEST_VARIANCE)
        deviation = torch.sqrt(variance)
        skewness = (third - 3 * first * second + 2 * first**3) / (variance * deviation)
        return deviation, skewness, (residual.abs().mean(1) @ self.bands) / deviation

    def _persistence(self, residual: torch.Tensor) -> torch.Tensor:
        """Lag-1 autocorrelation along time, per band [N, 40]."""
        first = residual.mean(1) @ self.bands
        second = (residual * residual).mean(1) @ self.bands
        lagged = (residual[:, 1:] * residual[:, :-1]).mean(1) @ self.bands
        return (lagged - first**2) / torch.clamp(second - first**2, min=SMALLEST_VARIANCE)


def _running_sum(values: torch.Tensor, axis: int, width: int) -> torch.Tensor:
    """Sum over ``width`` neighbours, as if zeros lay beyond the ends; nine are three sums of three."""
    padding = [0, 0] * (values.dim() - 1 - axis) + [width // 2, width // 2]
    total = functional.pad(values, padding)
    for taps, step in ((3, 1), (3, 3)) if width == 9 else ((width, 1),):
        size = total.shape[axis] - (taps - 1) * step
        parts = [total.narrow(axis, tap * step, size) for tap in range(taps)]
        total = sum(parts[1:], parts[0])
    return total


class FineStructure(nn.Module):
    """All statistics of prepared speech: texture (320), then residuals at three resolutions (840)."""

    def __init__(self) -> None:
        super().__init__()
        self.families = nn.ModuleList([Texture(), *(Residual(*size) for size in RESIDUAL_RESOLUTIONS)])

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Prepared samples float32 [N, T], T ≥ 1024, to features float32 [N, 1160]."""
        return torch.cat([family(samples) for family in self.families], 1)
