"""LaDeDa and Tiny-LaDeDa of Cavia et al. 2024, "Real-Time Deepfake Detection in the Real-World".

Both judge every small patch by itself and average: no convolution is padded and none reaches beyond a few
pixels. LaDeDa is a ResNet-50 with most of its 3×3 kernels made 1×1 (Brendel and Bethge 2019, BagNet), Tiny-LaDeDa
four convolutions with 1,297 parameters. Parameter names are those of the published weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT_SIZE = 256
"""Side of the pictures they were trained on, pixels."""
NPR = "npr"
"""Neighbouring pixel relations (Tan et al. 2024): a picture less its own twofold nearest-neighbour scaling."""
KERNELS: Mapping[str, tuple[tuple[int, ...], ...]] = MappingProxyType(
    {
        "x_grad": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
        "y_grad": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
        "left_diag": ((0, 1, 2), (-1, 0, 1), (-2, -1, 0)),
        "right_diag": ((-2, -1, 0), (-1, 0, 1), (0, 1, 2)),
    }
)
"""Sobel kernels in four directions."""
GRADIENTS = (NPR, *KERNELS)


class Gradient(nn.Module):
    """What the networks see instead of the picture; has no parameters."""

    def __init__(self, kind: str = NPR) -> None:
        super().__init__()
        kernel = torch.tensor(KERNELS[kind], dtype=torch.float32) if kind != NPR else torch.zeros(3, 3)
        self.is_npr = kind == NPR
        self.register_buffer("kernel", kernel.expand(3, 1, 3, 3).clone(), persistent=False)
        self.kernel: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] → [N, 3, H, W]; H and W even."""
        if not self.is_npr:
            return functional.conv2d(images, self.kernel, groups=3, padding=1)
        coarse = images[:, :, ::2, ::2]
        return images - coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


class Bottleneck(nn.Module):
    """Residual block whose middle convolution is not padded; the residual is cut at its right and lower edge."""

    def __init__(self, inputs: int, width: int, kernel: int, stride: int, *, project: bool) -> None:
        super().__init__()
        outputs = width * 4
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel, stride=stride, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] → [N, 4 width, H', W']."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        residual = self.downsample(x)[:, :, : out.shape[2], : out.shape[3]]
        return functional.relu(out + residual)


def stage(inputs: int, width: int, blocks: int, stride: int, wide_blocks: int) -> nn.Sequential:
    """``blocks`` bottlenecks; the first ``wide_blocks`` have 3×3 kernels, the others 1×1."""
    layers = [
        Bottleneck(
            inputs if index == 0 else width * 4,
            width,
            3 if index < wide_blocks else 1,
            stride if index == 0 else 1,
            project=index == 0,
        )
        for index in range(blocks)
    ]
    return nn.Sequential(*layers)


class LaDeDa(nn.Module):
    """The large network, with a receptive field of 9×9 pixels.

    Takes [N, 3, H, W] normalised like ImageNet, answers log-odds of fake [N, 1].
    """

    def __init__(self, gradient: str = NPR, wide_blocks: Sequence[int] = (1, 1, 0, 0)) -> None:
        super().__init__()
        self.gradient = Gradient(gradient)
        self.conv1 = nn.Conv2d(3, 64, 1, bias=False)
        self.conv2, self.bn1 = nn.Conv2d(64, 64, 3, bias=False), nn.BatchNorm2d(64)
        self.layer1 = stage(64, 64, 3, 2, wide_blocks[0])
        self.layer2 = stage(256, 128, 4, 2, wide_blocks[1])
        self.layer3 = stage(512, 256, 6, 2, wide_blocks[2])
        self.layer4 = stage(1024, 512, 3, 1, wide_blocks[3])
        self.fc = nn.Linear(2048, 1)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        # The published network scales its gradients by two thirds.
        x = self.conv2(self.conv1(self.gradient(images) * (2.0 / 3.0)))
        x = functional.relu(self.bn1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.as_tensor(self.fc(x.mean(dim=(2, 3))))


class TinyBlock(nn.Module):
    """A 1×1 and a 3×3 convolution of 8 channels, stride 2, without residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 8, H, W] → [N, 8, H', W']."""
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)))


class TinyLaDeDa(nn.Module):
    """The distilled network; input and output are those of LaDeDa."""

    def __init__(self, gradient: str = NPR) -> None:
        super().__init__()
        self.gradient = Gradient(gradient)
        self.conv1 = nn.Conv2d(3, 8, 1, bias=False)
        self.conv2, self.bn1 = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(TinyBlock())
        self.fc = nn.Linear(8, 1)

    def forward(self, images: Tensor) -> Tensor:
        """See LaDeDa."""
        x = functional.relu(self.bn1(self.conv2(self.conv1(self.gradient(images)))))
        return torch.as_tensor(self.fc(self.layer1(x).mean(dim=(2, 3))))
