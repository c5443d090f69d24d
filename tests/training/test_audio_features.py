"""The statistics of speech, held to a second implementation in plain numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch
from scipy import signal, stats

from tests.training.sounds import Floats, Sound, sound
from training.audio.features import FEATURES, FineStructure

pytestmark = pytest.mark.training


def spectra(samples: Sound, window: int, hop: int, fft: int) -> npt.NDArray[np.complex128]:
    hann = signal.get_window("hann", window)
    _, _, values = signal.stft(
        samples.astype(np.float64),
        window=hann,
        nperseg=window,
        noverlap=window - hop,
        nfft=fft,
        boundary=None,
        padded=False,
        detrend=False,
    )
    return values.T * hann.sum()


def spectrogram(samples: Sound, window: int, hop: int, fft: int) -> Floats:
    return np.abs(spectra(samples, window, hop, fft)) ** 2


def in_bands(values: Floats, bands: int) -> list[tuple[Floats, Floats]]:
    """For each band of equal width over bins 1…: the columns it touches and the share of each."""
    bins = values.shape[1] - 1
    width = bins / bands
    found = []
    for band in range(bands):
        low, high = band * width, (band + 1) * width
        columns = np.arange(int(low), int(np.ceil(high - 1e-9)))
        share = np.minimum(columns + 1, high) - np.maximum(columns, low)
        found.append((values[:, columns + 1], share / share.sum()))
    return found


def running_mean(values: Floats, axis: int, width: int) -> Floats:
    moved = np.moveaxis(values, axis, 0)
    means = [moved[max(0, i - width // 2) : i + width // 2 + 1].mean(0) for i in range(len(moved))]
    return np.moveaxis(np.array(means), 0, axis)


def log_floored(power: Floats, floor: float = 1e-7) -> Floats:
    return np.log(power + floor * power.mean())


def texture(samples: Sound) -> Floats:
    power = spectrogram(samples, 400, 160, 512)
    banded = np.stack([part @ share for part, share in in_bands(power, 80)], 1)
    level = log_floored(banded)
    level -= level.mean(1, keepdims=True)
    energy = banded.mean(1)
    loud = energy >= at_share(energy, 0.4)
    detail = level - running_mean(level, 1, 9)
    change = (level[2:] - level[:-2]) / 2
    return np.concatenate(
        [level[loud].std(0), detail[loud].mean(0), detail[loud].std(0), change.std(0) / (level.std(0) + 1e-3)]
    )


def moments(residual: Floats, bands: int = 40, smallest: float = 1e-12) -> list[Floats]:
    rows = []
    for part, share in in_bands(residual, bands):
        weight = np.broadcast_to(share, part.shape) / len(part)
        mean = (weight * part).sum()
        deviation = np.sqrt(max((weight * (part - mean) ** 2).sum(), smallest))
        skewness = (weight * (part - mean) ** 3).sum() / deviation**3
        rows.append([deviation, skewness, (weight * np.abs(part)).sum() / deviation])
    return list(np.array(rows).T)


def persistence(residual: Floats, bands: int = 40, smallest: float = 1e-12) -> Floats:
    rows = []
    for part, share in in_bands(residual, bands):
        mean = (part.mean(0) * share).sum()
        variance = ((part**2).mean(0) * share).sum() - mean**2
        lagged = ((part[1:] * part[:-1]).mean(0) * share).sum() - mean**2
        rows.append(lagged / max(variance, smallest))
    return np.array(rows)


def at_share(energy: Floats, share: float) -> float:
    return float(np.sort(energy)[int(np.ceil(share * (energy.size - 1) - 1e-3))])


def thirds(power: Floats) -> list[npt.NDArray[np.bool_]]:
    energy = power.sum(1)
    low, high = at_share(energy, 1 / 3), at_share(energy, 2 / 3)
    return [energy < low, (energy >= low) & (energy < high), energy >= high]


def residual_statistics(samples: Sound, window: int, hop: int) -> Floats:
    power = spectrogram(samples, window, hop, window)
    level = log_floored(power)
    fine, quick = level - running_mean(level, 1, 9), level - running_mean(level, 0, 5)
    groups = [np.ones(len(power), bool), *(thirds(power) if window == 512 else [])]
    shapes = [part for rows in groups for part in (*moments(fine[rows]), *moments(quick[rows]))]
    return np.concatenate([*shapes, persistence(fine)])


def prominence(samples: Sound, window: int, hop: int) -> Floats:
    level = log_floored(spectrogram(samples, window, hop, window), 0.1)
    fine, quick = level - running_mean(level, 1, 9), level - running_mean(level, 0, 5)
    return np.concatenate([*moments(fine, 20, 1e-6), *moments(quick, 20, 1e-6), persistence(fine, 20, 1e-6)])


def phase_agreement(samples: Sound, window: int, hop: int) -> Floats:
    phase = np.angle(spectra(samples, window, hop, window))
    along_frequency = np.diff(phase, axis=1)
    rows = []
    for difference in (np.diff(phase, 2, axis=0), np.diff(phase, 2, axis=1), np.diff(along_frequency, axis=0)):
        mean = np.zeros(window // 2 + 1, complex)
        mean[: difference.shape[1]] = np.exp(1j * difference).mean(0)
        banded = np.array([part[0] @ share for part, share in in_bands(mean[None], 20)])
        rows += [banded.real, banded.imag]
    return np.concatenate(rows)


def modulation(samples: Sound) -> Floats:
    power = spectrogram(samples, 128, 32, 128)
    level = log_floored(np.stack([part @ share for part, share in in_bands(power, 16)], 1))
    level -= level.mean(0)
    hann = signal.get_window("hann", 128)[:, None]
    starts = range(0, len(level) - 127, 64)
    found = np.mean([np.abs(np.fft.rfft(level[at : at + 128] * hann, axis=0)) ** 2 for at in starts], 0)
    rates = found[1:].reshape(32, 2, 16).sum(1)
    return np.log(rates / rates.sum(0) + 1e-6).T.ravel()


def reference(samples: Sound) -> Floats:
    resolutions = ((256, 128), (512, 128), (1024, 256))
    return np.concatenate(
        [
            texture(samples),
            *(residual_statistics(samples, *size) for size in resolutions),
            *(phase_agreement(samples, *size) for size in resolutions[1:]),
            modulation(samples),
            *(prominence(samples, *size) for size in resolutions[1:]),
        ]
    )


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.7])
def test_features_match_an_independent_reference(seconds: float) -> None:
    samples = sound(3, seconds)
    with torch.inference_mode():
        ours = FineStructure()(torch.from_numpy(samples)[None])[0].numpy()
    expected = reference(samples)
    assert ours.shape == (FEATURES,)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_reference_itself_agrees_with_scipy_on_moments() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(50, 41))
    deviation, skewness, _ = moments(values)
    for band in range(40):
        assert deviation[band] == pytest.approx(values[:, band + 1].std())
        assert skewness[band] == pytest.approx(stats.skew(values[:, band + 1]))


def test_features_ignore_loudness() -> None:
    samples = torch.from_numpy(sound(4))[None]
    with torch.inference_mode():
        loud, quiet = FineStructure()(samples), FineStructure()(samples * 0.01)
    torch.testing.assert_close(loud, quiet, rtol=1e-3, atol=1e-3)


def test_features_of_silence_and_of_half_silence_are_finite() -> None:
    silent = torch.zeros(1, 20_000)
    partly = torch.cat([silent, torch.from_numpy(sound(4, 0.5))[None]], 1)
    with torch.inference_mode():
        assert torch.isfinite(FineStructure()(silent)).all()
        assert torch.isfinite(FineStructure()(partly)).all()


# -- training --
