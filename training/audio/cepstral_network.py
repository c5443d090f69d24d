"""A small convolutional network on constant-Q cepstra, to compare with the statistics that are served.

Light convolutions with max-feature-map activations (Wu, He, Sun and Tan 2018), as published anti-spoofing
systems on cepstra use them, at a size that the few utterances there are can carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from services.common.media import SAMPLE_RATE
from training.audio.constant_q import COEFFICIENTS, HOP, ConstantQCepstra
from training.audio.heads import Features, Flags, Floats

EXCERPT = 2 * SAMPLE_RATE
"""Samples that the network hears; what is shorter is repeated."""
FRAMES = EXCERPT // HOP
CROP = 160
"""Frames of a training example."""
MASK_FRAMES, MASK_COEFFICIENTS = 24, 5
NOT_CONSTANT = 1e-6


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the network is trained: steps of Adam under a one-cycle rate (Smith and Topin 2018)."""

    steps: int = 200
    batch: int = 32
    highest_rate: float = 4e-3
    decay: float = 1e-3


class ExcerptCepstra(nn.Module):
    """The first two seconds as one row of cepstra: samples [N, T] to [N, 250 · 30]."""

    def __init__(self) -> None:
        super().__init__()
        self.cepstra = ConstantQCepstra()

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """See the class."""
        length = torch.ones_like(samples[0]).sum().long()  # a tensor, for the exporter divides by no symbol
        place = torch.arange(EXCERPT, device=samples.device) % length
        return self.cepstra(samples.index_select(1, place)).flatten(1)


class MaxFeatureMap(nn.Module):
    """A convolution to twice the channels, of which the larger half survives; normalised, then halved in size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, 2 * outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[N, inputs, frames, coefficients] to [N, outputs, frames // 2, coefficients // 2]."""
        first, second = self.convolution(values).chunk(2, 1)
        return functional.max_pool2d(self.norm(torch.maximum(first, second)), 2)


class CepstralNetwork(nn.Module):
    """Cepstra [N, frames, 30] to one log-odds [N]: statics, slopes and curvatures as three planes, 16 ms a frame."""

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.blocks = nn.Sequential(MaxFeatureMap(3, 8), MaxFeatureMap(8, 12), MaxFeatureMap(12, 16))
        self.dropout = nn.Dropout(0.4)
        self.head = nn.Linear(2 * 16 * (COEFFICIENTS // 8), 1)

    def forward(self, cepstra: torch.Tensor) -> torch.Tensor:
        """See the class."""
        paired = functional.avg_pool1d(cepstra.transpose(1, 2), 2).transpose(1, 2)
        values = (paired - self.mean) / self.deviation
        slope = values[:, 2:] - values[:, :-2]
        curvature = slope[:, 2:] - slope[:, :-2]
        planes = torch.stack([values[:, 2:-2], slope[:, 1:-1], curvature], 1)
        found = self.blocks(planes).transpose(2, 3).flatten(1, 2)
        pooled = torch.cat([found.mean(2), found.std(2)], 1)
        return self.head(self.dropout(pooled))[:, 0]


class CepstralClassifier(nn.Module):
    """Prepared samples [N, T] to uncalibrated log-odds [N, 1], front end included."""

    def __init__(self, network: CepstralNetwork) -> None:
        super().__init__()
        self.excerpt = ExcerptCepstra()
        self.network = network

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.network(self.excerpt(samples).reshape(-1, FRAMES, COEFFICIENTS))[:, None]


def fit(table: Mapping[str, Features], fake: Flags, weights: Floats, schedule: Schedule, seed: int) -> CepstralNetwork:
    """Train on examples drawn by weight, each through a channel drawn without regard to its label.

    Args:
        table: by channel, rows of ``ExcerptCepstra`` [n, 250 · 30].
        fake: [n].
        weights: [n], chances of being drawn.
        schedule: see there.
        seed: of weights and of everything drawn.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    sounds = torch.from_numpy(np.stack(list(table.values()))).reshape(len(table), fake.size, FRAMES, COEFFICIENTS)
    truth = torch.from_numpy(fake.astype(np.float32))
    network = CepstralNetwork(sounds.mean((0, 1, 2)), sounds.std((0, 1, 2)) + NOT_CONSTANT)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=schedule.decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.highest_rate, total_steps=schedule.steps)
    network.train()
    for _ in range(schedule.steps):
        rows = rng.choice(fake.size, schedule.batch, p=weights / weights.sum())
        channels = rng.integers(len(table), size=schedule.batch)
        batch = _augmented(sounds[channels, rows], rng)
        loss = functional.binary_cross_entropy_with_logits(network(batch), truth[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    return network.eval()


def _augmented(cepstra: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A random stretch of each, with some frames and some coefficients put out (Park et al. 2019)."""
    parts = []
    for one in cepstra:
        start = int(rng.integers(FRAMES - CROP + 1))
        part = one[start : start + CROP].clone()
        frame, coefficient = int(rng.integers(CROP)), int(rng.integers(COEFFICIENTS))
        part[frame : frame + int(rng.integers(MASK_FRAMES))] = 0.0
        part[:, coefficient : coefficient + int(rng.integers(MASK_COEFFICIENTS))] = 0.0
        parts.append(part)
    return torch.stack(parts)


def score(network: CepstralNetwork, rows: Features) -> Floats:
    """Uncalibrated log-odds float64 [n] of rows of ``ExcerptCepstra``."""
    with torch.inference_mode():
        cepstra = torch.from_numpy(rows).reshape(-1, FRAMES, COEFFICIENTS)
        answers: npt.NDArray[np.float32] = np.concatenate([network(part).numpy() for part in cepstra.split(64)])
    return answers.astype(np.float64)
