"""The networks that stand beside the frame classifier: small, each looking in another way.

ResNet-18 (He et al. 2016, at half its width, from scratch) looks at windows of the crop at full resolution, so that
it learns texture rather than faces; being convolutional up to its mean, it then reads the whole crop. Meso4 and
MesoInception4 (Afchar et al. 2018) look at the whole face, and start from their published weights.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.checkpoints.meso import Meso4, MesoInception4
from training.checkpoints.weights import load_exactly, meso_state
from training.data import data_root
from training.torch_setup import prepare

WIDTHS = (32, 64, 128, 256)
"""Channels of ResNet-18's stages: half of the published ones."""
WINDOW = 112
"""Side of the windows that it is trained on, pixels of the crop."""
MESO_SIDE = 256
"""Side to which the crops are scaled for the Meso networks, the published one."""
PUBLISHED = {"meso4": "Meso4_DF.h5", "mesoinception4": "MesoInception_DF.h5"}
"""Files of the weights that Afchar et al. published (Apache-2.0), under ``checkpoints`` of the data."""


class WindowedResNet(nn.Module):
    """ResNet-18 over windows of the crop while training, over the whole crop afterwards."""

    def __init__(self) -> None:
        super().__init__()
        prepare()
        import timm  # noqa: PLC0415 - needs torchvision's operators declared first

        self.network = timm.create_model("resnet18", num_classes=1, channels=WIDTHS, stem_width=WIDTHS[0])

    def forward(self, crops: Tensor) -> Tensor:
        """Logit [n, 1] of uint8 crops [n, side, side, 3] RGB."""
        pixels = (crops.permute(0, 3, 1, 2).to(torch.float32) - 127.0) / 64.0
        if self.training:
            pixels = _window(pixels)
        return cast("Tensor", self.network(pixels.contiguous(memory_format=torch.channels_last)))


class WholeFace(nn.Module):
    """A Meso network over the whole crop.

    Args:
        network: takes [n, 3, MESO_SIDE, MESO_SIDE] within [0, 1].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        """Logit [n, 1] of uint8 crops [n, side, side, 3] RGB."""
        pixels = crops.permute(0, 3, 1, 2).to(torch.float32)
        pixels = functional.interpolate(pixels, (MESO_SIDE, MESO_SIDE), mode="bilinear", align_corners=False)
        return cast("Tensor", self.network((pixels / 255.0).contiguous(memory_format=torch.channels_last)))


def new_members() -> nn.ModuleDict:
    """The untrained members by the name under which they are served."""
    members = nn.ModuleDict(
        {
            "resnet18": WindowedResNet(),
            "meso4": WholeFace(Meso4(MESO_SIDE)),
            "mesoinception4": WholeFace(MesoInception4(MESO_SIDE)),
        }
    )
    return members.to(memory_format=torch.channels_last)


def load_published(members: nn.ModuleDict) -> None:
    """Give the Meso networks their published weights, turned so that a high number says fake.

    Raises:
        CheckpointError: they are not there, or are other networks'.
    """
    for name, file in PUBLISHED.items():
        network = cast("Meso4 | MesoInception4", members[name].network)
        load_exactly(network, meso_state(data_root() / "checkpoints" / file, network), name)
        with torch.no_grad():
            network.head.dense2.weight.neg_()
            network.head.dense2.bias.neg_()


def _window(pixels: Tensor) -> Tensor:
    """The same randomly placed window of every picture, so that a pair is compared in one place."""
    down, across = (int(place) for place in torch.randint(pixels.shape[-1] - WINDOW + 1, (2,)))
    return pixels[:, :, down : down + WINDOW, across : across + WINDOW]
