"""Statistics of the spectrum's fine structure, as one torch module that exports to ONNX.

What vocoders and neural synthesis leave behind is weak, fine detail: how much each narrow band fluctuates
from frame to frame, how it stands out from its neighbours, how its residual is distributed, whether phases
of neighbours agree, at what rates envelopes move. Colour and loudness of the channel cancel in every one of
these numbers.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from training.audio.spectra import (
    FLOOR,
    ShortTimeSpectrum,
    Spectrum,
    at_share,
    band_matrix,
    log_level,
    ordered,
    running_sum,
    smoothing_matrix,
)

TEXTURE_BANDS = 80
TEXTURE_WINDOW, TEXTURE_HOP, TEXTURE_FFT = 400, 160, 512
TEXTURE_SMOOTHING = 9
QUIET_SHARE = 0.4
RATIO_FLOOR = 1e-3

RESIDUAL_BANDS = 40
RESOLUTIONS = ((256, 128), (512, 128), (1024, 256))
FREQUENCY_SMOOTHING = 9
TIME_SMOOTHING = 5
SMALLEST_VARIANCE = 1e-12

THIRDS_RESOLUTION = 1
PROMINENT_FLOOR = 0.1
"""Share of the mean power below which residuals of what stands out hardly move. Noise and low bit rates fill
weak bins with their own detail; what lies well above it is still the voice's. On held-out sources it takes
the equal error rate at 20 dB of noise from 33.8 to 32.1 %, and after MP3 at 32 kbit/s from 27.8 to 26.9 %."""
PROMINENT_RESOLUTIONS = (1, 2)
PROMINENT_BANDS = 20
PROMINENT_VARIANCE = 1e-6
"""Far below the floor residuals are rounding errors, of which no ratio may be taken."""

PHASE_RESOLUTIONS = (1, 2)
PHASE_BANDS = 20
SMALLEST_MAGNITUDE = 1e-9

MODULATION_WINDOW, MODULATION_HOP = 128, 32
MODULATION_BANDS, MODULATION_RATES = 16, 32
MODULATION_FRAMES = 128
MODULATION_FLOOR = 1e-6

SHORTEST = MODULATION_WINDOW + (MODULATION_FRAMES - 1) * MODULATION_HOP
"""Samples that a sound must have at least."""

FEATURES = (
    4 * TEXTURE_BANDS
    + 7 * RESIDUAL_BANDS * len(RESOLUTIONS)
    + 18 * RESIDUAL_BANDS
    + 6 * PHASE_BANDS * len(PHASE_RESOLUTIONS)
    + MODULATION_BANDS * MODULATION_RATES
    + 7 * PROMINENT_BANDS * len(PROMINENT_RESOLUTIONS)
)


class Texture(nn.Module):
    """Per band: how much the log spectrum varies, stands out from its neighbours, and moves (4 × 80)."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = ShortTimeSpectrum(TEXTURE_WINDOW, TEXTURE_HOP, TEXTURE_FFT)
        self.register_buffer("bands", torch.from_numpy(band_matrix(TEXTURE_FFT // 2, TEXTURE_BANDS)))
        smooth = torch.from_numpy(smoothing_matrix(TEXTURE_BANDS, TEXTURE_SMOOTHING))
        self.register_buffer("detail", torch.eye(TEXTURE_BANDS) - smooth)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N, T] to features [N, 320]."""
        power = self.spectrum(samples).power() @ self.bands
        level = log_level(power)
        level = level - level.mean(2, keepdim=True)
        energy = power.mean(2)
        loud = (energy >= at_share(ordered(energy), QUIET_SHARE)).to(level.dtype)[:, :, None]
        count = loud.sum(1)
        detail = level @ self.detail
        moving = (level[:, 2:] - level[:, :-2]) / 2
        return torch.cat(
            [
                _deviation(level, loud, count),
                (detail * loud).sum(1) / count,
                _deviation(detail, loud, count),
                moving.std(1, correction=0) / (level.std(1, correction=0) + RATIO_FLOOR),
            ],
            1,
        )


def _deviation(values: torch.Tensor, weight: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    mean = (values * weight).sum(1, keepdim=True) / count[:, None]
    return torch.sqrt((((values - mean) ** 2) * weight).sum(1) / count)


class Residuals(nn.Module):
    """How the log spectrum differs from its running mean along frequency (fine) and along time (quick)."""

    def __init__(self, bins: int, floor: float = FLOOR) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("neighbours", running_sum(torch.ones(bins + 1), 0, FREQUENCY_SMOOTHING))

    def forward(self, power: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Power [N, frames, bins] to fine and quick residuals of the same shape."""
        level = log_level(power, self.floor)
        fine = level - running_sum(level, 2, FREQUENCY_SMOOTHING) / self.neighbours
        frames = torch.ones_like(level[:1, :, :1])
        quick = level - running_sum(level, 1, TIME_SMOOTHING) / running_sum(frames, 1, TIME_SMOOTHING)
        return fine, quick


class Distribution(nn.Module):
    """How residuals are distributed in each of some bands, over all frames and in thirds of them by energy."""

    def __init__(self, bins: int, bands: int = RESIDUAL_BANDS, smallest: float = SMALLEST_VARIANCE) -> None:
        super().__init__()
        self.smallest = smallest
        self.register_buffer("bands", torch.from_numpy(band_matrix(bins, bands)))

    def forward(self, residual: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Standard deviation, skewness and mean|r|/std.

        Args:
            residual: [N, frames, bins].
            weights: [N, groups, frames], each row summing to 1.

        Returns:
            [N, groups, 3 · bands].
        """
        square = residual * residual
        first, second, third, size = (
            weights @ values @ self.bands for values in (residual, square, square * residual, residual.abs())
        )
        variance = torch.clamp(second - first**2, min=self.smallest)
        deviation = torch.sqrt(variance)
        skewness = (third - 3 * first * second + 2 * first**3) / (variance * deviation)
        return torch.cat([deviation, skewness, size / deviation], 2)

    def persistence(self, residual: torch.Tensor) -> torch.Tensor:
        """Lag-1 autocorrelation along time, [N, bands]."""
        first = residual.mean(1) @ self.bands
        second = (residual * residual).mean(1) @ self.bands
        lagged = (residual[:, 1:] * residual[:, :-1]).mean(1) @ self.bands
        return (lagged - first**2) / torch.clamp(second - first**2, min=self.smallest)


class Prominence(nn.Module):
    """Distribution and persistence of residuals over a high floor, so that strong bins alone count (7 × 20)."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.residuals = Residuals(bins, PROMINENT_FLOOR)
        self.distribution = Distribution(bins, PROMINENT_BANDS, PROMINENT_VARIANCE)

    def forward(self, power: torch.Tensor) -> torch.Tensor:
        """Power [N, frames, bins] to features [N, 140]."""
        fine, quick = self.residuals(power)
        groups = _everything(power)
        shapes = [self.distribution(residual, groups).flatten(1) for residual in (fine, quick)]
        return torch.cat([*shapes, self.distribution.persistence(fine)], 1)


class PhaseAgreement(nn.Module):
    """Mean second differences of the phase along time, along frequency, and across both (6 × 20).

    A phase that advances steadily gives a mean phasor of length 1; phases without order give 0.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("bands", torch.from_numpy(band_matrix(bins, PHASE_BANDS)))

    def forward(self, spectrum: Spectrum) -> torch.Tensor:
        """Spectrum [N, frames, bins] to features [N, 120]."""
        # Clamped rather than added to: the ONNX exporter drops a sum with so small a constant.
        scale = 1.0 / torch.clamp(torch.sqrt(spectrum.power()), min=SMALLEST_MAGNITUDE)
        unit = Spectrum(spectrum.real * scale, spectrum.imaginary * scale)
        along_time = unit.part(1, 1, 0).turned_back_by(unit.part(1, 0, 1))
        along_frequency = unit.part(2, 1, 0).turned_back_by(unit.part(2, 0, 1))
        differences = (
            along_time.part(1, 1, 0).turned_back_by(along_time.part(1, 0, 1)),
            along_frequency.part(2, 1, 0).turned_back_by(along_frequency.part(2, 0, 1)),
            along_frequency.part(1, 1, 0).turned_back_by(along_frequency.part(1, 0, 1)),
        )
        return torch.cat([self._mean(part) for spectrum in differences for part in spectrum], 1)

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        mean = values.mean(1)
        return functional.pad(mean, (0, self.bands.shape[0] - mean.shape[1])) @ self.bands


class Modulation(nn.Module):
    """At what rates the log envelopes of 16 bands move: 32 shares of each band's modulation power, as logs."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = ShortTimeSpectrum(MODULATION_WINDOW, MODULATION_HOP, MODULATION_WINDOW)
        self.register_buffer("bands", torch.from_numpy(band_matrix(MODULATION_WINDOW // 2, MODULATION_BANDS)))
        self.register_buffer("window", torch.hann_window(MODULATION_FRAMES))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N, T], T ≥ 4192, to features [N, 512]."""
        level = log_level(self.spectrum(samples).power() @ self.bands)
        level = level - level.mean(1, keepdim=True)
        pieces = level.unfold(1, MODULATION_FRAMES, MODULATION_FRAMES // 2) * self.window
        values = torch.fft.rfft(pieces)
        power = (values.real**2 + values.imag**2).mean(1)[:, :, 1:]
        power = power.reshape(-1, MODULATION_BANDS, MODULATION_RATES, 2).sum(3)
        whole = torch.clamp(power.sum(2, keepdim=True), min=SMALLEST_VARIANCE)
        return torch.log(power / whole + MODULATION_FLOOR).flatten(1)


class FineStructure(nn.Module):
    """All statistics of prepared speech.

    In order: texture (320); for each of three resolutions the distribution (240; at the middle one for all
    frames and then for their quiet, middle and loud thirds, 960) and persistence (40) of residuals; phase
    agreement at two resolutions (240); modulation (512); prominence at two resolutions (280).
    """

    def __init__(self) -> None:
        super().__init__()
        bins = [window // 2 for window, _ in RESOLUTIONS]
        self.texture = Texture()
        self.spectra = nn.ModuleList([ShortTimeSpectrum(window, hop, window) for window, hop in RESOLUTIONS])
        self.residuals = nn.ModuleList([Residuals(count) for count in bins])
        self.distributions = nn.ModuleList([Distribution(count) for count in bins])
        self.phases = nn.ModuleList([PhaseAgreement(bins[index]) for index in PHASE_RESOLUTIONS])
        self.modulation = Modulation()
        self.prominences = nn.ModuleList([Prominence(bins[index]) for index in PROMINENT_RESOLUTIONS])

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Prepared samples float32 [N, T], T ≥ 4192, to features float32 [N, 2912]."""
        spectra = [spectrum(samples) for spectrum in self.spectra]
        powers = [spectrum.power() for spectrum in spectra]
        found = [self.texture(samples)]
        for index, power in enumerate(powers):
            found += self._residual_statistics(index, power)
        found += [phase(spectra[index]) for phase, index in zip(self.phases, PHASE_RESOLUTIONS, strict=True)]
        found.append(self.modulation(samples))
        places = zip(self.prominences, PROMINENT_RESOLUTIONS, strict=True)
        found += [prominence(powers[index]) for prominence, index in places]
        return torch.cat(found, 1)

    def _residual_statistics(self, index: int, power: torch.Tensor) -> list[torch.Tensor]:
        distribution = self.distributions[index]
        fine, quick = self.residuals[index](power)
        groups = _everything(power)
        if index == THIRDS_RESOLUTION:
            groups = torch.cat([groups, _thirds(power.sum(2))], 1)
        shapes = torch.cat([distribution(fine, groups), distribution(quick, groups)], 2)
        return [shapes.flatten(1), distribution.persistence(fine)]


def _everything(power: torch.Tensor) -> torch.Tensor:
    """One group of all frames: [N, 1, frames]."""
    alike = torch.ones_like(power[:, None, :, 0])
    return alike / alike.sum(2, keepdim=True)


def _thirds(energy: torch.Tensor) -> torch.Tensor:
    """The quiet, middle and loud third of the frames: energies [N, frames] to weights [N, 3, frames].

    Where many frames are equally quiet (digital silence) a third can be empty; all frames stand in for it.
    """
    levels = ordered(energy)
    low, high = at_share(levels, 1 / 3), at_share(levels, 2 / 3)
    member = torch.stack([energy < low, (energy >= low) & (energy < high), energy >= high], 1).to(energy.dtype)
    count = member.sum(2, keepdim=True)
    member = torch.where(count > 0, member, torch.ones_like(member))
    return member / member.sum(2, keepdim=True)
