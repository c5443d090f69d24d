"""AASIST and AASIST-L, anti-spoofing by graph attention over spectrum and time.

Jung et al. 2022, "AASIST: Audio Anti-Spoofing using Integrated Spectro-Temporal Graph Attention Networks". A
RawNet2-like encoder makes a map of spectrum against time; one graph takes its maxima over time, another its
maxima over the spectrum; two parallel stacks of heterogeneous attention join them. Parameter names are those of
the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.checkpoints.graph_attention import GraphAttention, GraphPool, HeterogeneousGraphAttention
from training.checkpoints.sinc import SincFilters

INPUT_SAMPLES = 64_600
TAPS = 128
FIRST_FILTERS = 70
SPECTRAL_NODES = FIRST_FILTERS // 3


@dataclass(frozen=True, slots=True)
class Configuration:
    """What differs between the sizes: widths of the encoder and the graphs, shares kept by pooling."""

    widths: tuple[tuple[int, int], ...]
    graph_widths: tuple[int, int]
    shares: tuple[float, float, float]
    temperatures: tuple[float, float] = (2.0, 100.0)


AASIST_CONFIGURATION = Configuration(
    widths=((1, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 64)),
    graph_widths=(64, 32),
    shares=(0.5, 0.7, 0.5),
)
AASIST_L_CONFIGURATION = Configuration(
    widths=((1, 32), (32, 32), (32, 24), (24, 24), (24, 24), (24, 24)),
    graph_widths=(24, 32),
    shares=(0.4, 0.5, 0.7),
)


class ResidualBlock(nn.Module):
    """Two convolutions over the map and a pooling of time by 3.

    As in RawNet2's published weights, the first convolution reads the block's input itself.
    """

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        if not first:
            self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1, self.bn2 = nn.Conv2d(inputs, outputs, (2, 3), padding=(1, 1)), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, (2, 3), padding=(0, 1))
        self.changes_width = inputs != outputs
        if self.changes_width:
            self.conv_downsample = nn.Conv2d(inputs, outputs, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, F, T] → [N, outputs, F, T // 3]."""
        out = self.conv2(functional.selu(self.bn2(self.conv1(x))))
        return functional.max_pool2d(out + (self.conv_downsample(x) if self.changes_width else x), (1, 3))


class Aasist(nn.Module):
    """Takes samples [N, 64600], answers two numbers [N, 2]: spoof, bona fide."""

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        width, joint = configuration.graph_widths
        near, far = configuration.temperatures
        spectral, temporal, mixed = configuration.shares
        last = configuration.widths[-1][1]
        self.sinc = SincFilters(FIRST_FILTERS, TAPS)
        self.first_bn = nn.BatchNorm2d(1)
        blocks = (ResidualBlock(a, b, first=index == 0) for index, (a, b) in enumerate(configuration.widths))
        self.encoder = nn.Sequential(*(nn.Sequential(block) for block in blocks))
        self.pos_S = nn.Parameter(torch.randn(1, SPECTRAL_NODES, last))
        self.master1, self.master2 = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 1, width))
        self.GAT_layer_S, self.GAT_layer_T = (GraphAttention(last, width, near) for _ in range(2))
        self.pool_S, self.pool_T = GraphPool(width, spectral), GraphPool(width, temporal)
        for stack in (1, 2):
            self.add_module(f"HtrgGAT_layer_ST{stack}1", HeterogeneousGraphAttention(width, joint, far))
            self.add_module(f"HtrgGAT_layer_ST{stack}2", HeterogeneousGraphAttention(joint, joint, far))
            self.add_module(f"pool_hS{stack}", GraphPool(joint, mixed))
            self.add_module(f"pool_hT{stack}", GraphPool(joint, mixed))
        self.out_layer = nn.Linear(5 * joint, 2)

    def forward(self, samples: Tensor) -> Tensor:
        """See the class."""
        x = functional.max_pool2d(self.sinc(samples)[:, None].abs(), 3)
        features = self.encoder(functional.selu(self.first_bn(x))).abs()
        spectral = self.pool_S(self.GAT_layer_S(features.amax(dim=3).transpose(1, 2) + self.pos_S))
        temporal = self.pool_T(self.GAT_layer_T(features.amax(dim=2).transpose(1, 2)))
        first = self._stack(1, temporal, spectral, self.master1)
        second = self._stack(2, temporal, spectral, self.master2)
        temporal, spectral, master = (torch.maximum(a, b) for a, b in zip(first, second, strict=True))
        readout = [
            temporal.abs().amax(dim=1),
            temporal.mean(dim=1),
            spectral.abs().amax(dim=1),
            spectral.mean(dim=1),
            master[:, 0],
        ]
        return torch.as_tensor(self.out_layer(torch.cat(readout, dim=1)))

    def _stack(self, number: int, temporal: Tensor, spectral: Tensor, master: Tensor) -> tuple[Tensor, ...]:
        """One of the two parallel stacks; its second layer adds to what the first one found."""
        joint, again = (self.get_submodule(f"HtrgGAT_layer_ST{number}{layer}") for layer in (1, 2))
        # One learnt vector serves the whole batch.
        temporal, spectral, master = joint(temporal, spectral, master.expand(temporal.shape[0], -1, -1))
        spectral = self.get_submodule(f"pool_hS{number}")(spectral)
        temporal = self.get_submodule(f"pool_hT{number}")(temporal)
        more = again(temporal, spectral, master)
        return tuple(old + new for old, new in zip((temporal, spectral, master), more, strict=True))
