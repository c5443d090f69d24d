"""The patch gate: the Tiny-LaDeDa shape of Cavia et al., "Real-Time Deepfake Detection in the Real-World" (2024).

About 1.3 thousand parameters look at 9x9 patches of the picture's gradient, one logit a patch; the mean over
patches is the crop's logit. Gradients hide what a picture shows and keep how it was made.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_DIFFERENCES = torch.tensor([[[0.0, 0.0, 0.0], [-0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]])


class PatchGate(nn.Module):
    """Takes uint8 crops, answers a logit a crop and a logit a patch; preprocessing is inside."""

    def __init__(self) -> None:
        super().__init__()
        across = _DIFFERENCES
        down = _DIFFERENCES.transpose(1, 2)
        self.register_buffer("differences", torch.stack([across, down]).repeat(3, 1, 1, 1))
        self.layers = nn.Sequential(
            nn.Conv2d(6, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 2, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 1, 1),
        )

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logit [n, 1] and patch logits [n, h, w] of uint8 crops [n, side, side, 3] RGB."""
        pixels = crops.permute(0, 3, 1, 2).to(torch.float32) / 32.0
        gradients = functional.conv2d(pixels, cast("Tensor", self.differences), groups=3)
        patches = self.layers(gradients)[:, 0]
        return patches.mean(dim=(1, 2))[:, None], patches
