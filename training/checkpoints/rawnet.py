"""RawNet2 for anti-spoofing: Tak et al. 2021, "End-to-end anti-spoofing with RawNet2".

Fixed sinc filters, six residual blocks each followed by feature-map scaling, three gated recurrent layers.
Parameter names are those of the published weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.checkpoints.sinc import SincFilters

INPUT_SAMPLES = 64_600
"""About 4 s: what the published networks hear."""
FILTERS, TAPS = 20, 1024
WIDTHS = ((20, 20), (20, 20), (20, 128), (128, 128), (128, 128), (128, 128))
LEAK = 0.3


class ResidualBlock(nn.Module):
    """Two convolutions of length 3 and a pooling by 3.

    The first convolution reads the block's input, not its normalised form: so the published weights were
    trained, although ``bn1`` is among them.
    """

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        if not first:
            self.bn1 = nn.BatchNorm1d(inputs)
        self.conv1, self.bn2 = nn.Conv1d(inputs, outputs, 3, padding=1), nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=1)
        self.changes_width = inputs != outputs
        if self.changes_width:
            self.conv_downsample = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, T] → [N, outputs, T // 3]."""
        out = self.conv2(functional.leaky_relu(self.bn2(self.conv1(x)), LEAK))
        return functional.max_pool1d(out + (self.conv_downsample(x) if self.changes_width else x), 3)


class RawNet2(nn.Module):
    """Takes samples [N, 64600], answers two numbers [N, 2]: spoof, bona fide."""

    def __init__(self) -> None:
        super().__init__()
        self.sinc = SincFilters(FILTERS, TAPS)
        self.first_bn = nn.BatchNorm1d(FILTERS)
        for index, (inputs, outputs) in enumerate(WIDTHS):
            self.add_module(f"block{index}", nn.Sequential(ResidualBlock(inputs, outputs, first=index == 0)))
            self.add_module(f"fc_attention{index}", nn.Sequential(nn.Linear(outputs, outputs)))
        self.bn_before_gru = nn.BatchNorm1d(WIDTHS[-1][1])
        self.gru = nn.GRU(WIDTHS[-1][1], 1024, num_layers=3, batch_first=True)
        self.fc1_gru = nn.Linear(1024, 1024)
        self.fc2_gru = nn.Linear(1024, 2)

    def forward(self, samples: Tensor) -> Tensor:
        """See the class."""
        x = functional.max_pool1d(self.sinc(samples).abs(), 3)
        x = functional.selu(self.first_bn(x))
        for index in range(len(WIDTHS)):
            x = self.get_submodule(f"block{index}")(x)
            weight = torch.sigmoid(self.get_submodule(f"fc_attention{index}")(x.mean(dim=2)))[:, :, None]
            x = x * weight + weight
        x = functional.selu(self.bn_before_gru(x))
        states, _ = self.gru(x.transpose(1, 2))
        return torch.as_tensor(self.fc2_gru(self.fc1_gru(states[:, -1])))
