"""Meso4 and MesoInception4 of Afchar et al. 2018, "MesoNet: a Compact Facial Video Forgery Detection Network".

Their published weights are Keras files, so layout and details are Keras's: same padding, batch normalisation
with an epsilon of 0.001, and features flattened channels last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT_SIZE = 256
"""Side of the crops they were made for, pixels."""
NORM_EPSILON = 1e-3
REDUCTION = 32
"""Pixels of the input a cell of the last feature map."""
HIDDEN = 16
LEAK = 0.1


def convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation as Keras sets it."""
    return nn.BatchNorm2d(channels, eps=NORM_EPSILON)


class Head(nn.Module):
    """The two dense layers that both networks share."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(16 * (size // REDUCTION) ** 2, HIDDEN)
        self.dense2 = nn.Linear(HIDDEN, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, 16, size / 32, size / 32] → one number [N, 1]."""
        flat = self.dropout(features.permute(0, 2, 3, 1).flatten(1))
        hidden = self.dropout(functional.leaky_relu(self.dense1(flat), LEAK))
        return torch.as_tensor(self.dense2(hidden))


class Meso4(nn.Module):
    """Four convolutions, 28 K parameters.

    Takes [N, 3, 256, 256] within [0, 1], answers [N, 1]: the log-odds of the class that training numbered 1
    (in the published weights: real).

    Args:
        size: side of the pictures, pixels; a multiple of 32.
    """

    def __init__(self, size: int = INPUT_SIZE) -> None:
        super().__init__()
        self.conv1, self.bn1 = convolution(3, 8, 3), norm(8)
        self.conv2, self.bn2 = convolution(8, 8, 5), norm(8)
        self.conv3, self.bn3 = convolution(8, 16, 5), norm(16)
        self.conv4, self.bn4 = convolution(16, 16, 5), norm(16)
        self.head = Head(size)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = functional.max_pool2d(self.bn1(functional.relu(self.conv1(images))), 2)
        x = functional.max_pool2d(self.bn2(functional.relu(self.conv2(x))), 2)
        x = functional.max_pool2d(self.bn3(functional.relu(self.conv3(x))), 2)
        x = functional.max_pool2d(self.bn4(functional.relu(self.conv4(x))), 4)
        return torch.as_tensor(self.head(x))


class Inception(nn.Module):
    """Four parallel paths of growing reach, all with rectified linear units.

    The paper dilates the last two paths by 2 and 3 instead of enlarging their kernels.
    """

    def __init__(self, inputs: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        a, b, c, d = widths
        self.path1 = convolution(inputs, a, 1)
        self.path2_in, self.path2 = convolution(inputs, b, 1), convolution(b, b, 3)
        self.path3_in, self.path3 = convolution(inputs, c, 1), convolution(c, c, 3, dilation=2)
        self.path4_in, self.path4 = convolution(inputs, d, 1), convolution(d, d, 3, dilation=3)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] → [N, sum of widths, H, W]."""
        near = functional.relu(self.path1(x))
        plain = functional.relu(self.path2(functional.relu(self.path2_in(x))))
        wide = functional.relu(self.path3(functional.relu(self.path3_in(x))))
        widest = functional.relu(self.path4(functional.relu(self.path4_in(x))))
        return torch.cat([near, plain, wide, widest], dim=1)


class MesoInception4(nn.Module):
    """Meso4 with its first two convolutions replaced by inception modules, 29 K parameters.

    Input, output and argument are those of Meso4.
    """

    def __init__(self, size: int = INPUT_SIZE) -> None:
        super().__init__()
        self.inception1, self.bn1 = Inception(3, (1, 4, 4, 2)), norm(11)
        self.inception2, self.bn2 = Inception(11, (2, 4, 4, 2)), norm(12)
        self.conv3, self.bn3 = convolution(12, 16, 5), norm(16)
        self.conv4, self.bn4 = convolution(16, 16, 5), norm(16)
        self.head = Head(size)

    def forward(self, images: Tensor) -> Tensor:
        """See Meso4."""
        x = functional.max_pool2d(self.bn1(self.inception1(images)), 2)
        x = functional.max_pool2d(self.bn2(self.inception2(x)), 2)
        x = functional.max_pool2d(self.bn3(functional.relu(self.conv3(x))), 2)
        x = functional.max_pool2d(self.bn4(functional.relu(self.conv4(x))), 4)
        return torch.as_tensor(self.head(x))
