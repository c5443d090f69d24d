"""The architectures that can be imported: how each is rebuilt, and what it takes and answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from training.checkpoints import aasist, ladeda, rawnet
from training.checkpoints.meso import INPUT_SIZE as MESO_SIZE
from training.checkpoints.meso import Meso4, MesoInception4
from training.checkpoints.weights import CheckpointError, load_exactly, meso_state, read_torch
from training.torch_setup import prepare

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
UNSCALED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Modality(StrEnum):
    """What a network looks at."""

    FACE = "face"
    SPEECH = "speech"


Builder = Callable[[Path, str], nn.Module]
"""Fills a network from a file; the text names the gradient that LaDeDa networks look at."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One importable network.

    ``build`` answers the network filled with the checkpoint. It takes float pictures [N, 3, size, size],
    normalised with ``mean`` and ``deviation`` after scaling to [0, 1], or samples [N, size]. ``fake_class``
    is the column of its answer that means fake when it has two; with one column, 1 means that a high number
    says fake and 0 that it says real.
    """

    name: str
    modality: Modality
    size: int
    fake_class: int
    source: str
    build: Builder
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] = field(default=IMAGENET)


def _meso(factory: Callable[[], nn.Module]) -> Builder:
    def build(path: Path, _: str) -> nn.Module:
        model = factory()
        load_exactly(model, meso_state(path, model), type(model).__name__)
        return model

    return build


def _own(factory: Callable[[str], nn.Module]) -> Builder:
    def build(path: Path, gradient: str) -> nn.Module:
        model = factory(gradient)
        load_exactly(model, read_torch(path), type(model).__name__)
        return model

    return build


def _timm(name: str, head: str, *, published_as: str | None = None) -> Builder:
    """A network of timm's; ``head`` is its last layer.

    ``published_as`` is the variant that checkpoints under the naming of the DFDC winners (``encoder.`` and
    ``fc.``; Seferbekov 2020) were trained with.
    """

    def build(path: Path, _: str) -> nn.Module:
        state, wrapped = _timm_state(read_torch(path), head)
        weight = state.get(f"{head}.weight")
        if weight is None:
            raise CheckpointError(f"this is no {name} checkpoint: it lacks {head}.weight")
        prepare()
        import timm  # noqa: PLC0415 - needs torchvision's operators declared first

        variant = published_as if wrapped and published_as else name
        model = cast("nn.Module", timm.create_model(variant, pretrained=False, num_classes=weight.shape[0]))
        load_exactly(model, state, variant)
        return model

    return build


def _timm_state(state: Mapping[str, Tensor], head: str) -> tuple[dict[str, Tensor], bool]:
    """Timm's own names, and whether the checkpoint followed the DFDC winners' naming.

    Their ``encoder.`` keeps its ImageNet classifier, which is never used: it is left out. FaceForensics++
    puts ``model.`` before every name and calls the last layer ``last_linear``, alone or after a dropout.
    """
    if any(key.startswith("encoder.") for key in state):
        kept = {key: value for key, value in state.items() if not key.startswith(f"encoder.{head}.")}
        renamed = {re.sub(r"^encoder\.", "", re.sub(r"^fc\.", f"{head}.", key)): kept[key] for key in kept}
        return renamed, True
    if all(key.startswith("model.") for key in state):
        state = {key.removeprefix("model."): value for key, value in state.items()}
    renamed = {re.sub(r"^last_linear\.(1\.)?", f"{head}.", key): value for key, value in state.items()}
    # Some Xception files keep the pointwise kernels as matrices.
    return {
        key: value[:, :, None, None] if key.endswith("pointwise.weight") and value.ndim == 2 else value
        for key, value in renamed.items()
    }, False


def _faces() -> list[Architecture]:
    face, patches = Modality.FACE, ladeda.INPUT_SIZE
    found = [
        Architecture("meso4", face, MESO_SIZE, 0, "Afchar et al. 2018", _meso(Meso4), UNSCALED),
        Architecture("mesoinception4", face, MESO_SIZE, 0, "Afchar et al. 2018", _meso(MesoInception4), UNSCALED),
        Architecture(
            "xception", face, 299, 1, "Chollet 2017; Rössler et al. 2019", _timm("legacy_xception", "fc"), HALF
        ),
        Architecture("resnet18", face, 224, 1, "He et al. 2016", _timm("resnet18", "fc")),
        Architecture("ladeda", face, patches, 1, "Cavia et al. 2024", _own(ladeda.LaDeDa)),
        Architecture("tiny-ladeda", face, patches, 1, "Cavia et al. 2024", _own(ladeda.TinyLaDeDa)),
    ]
    for size, side in (("b0", 224), ("b4", 380), ("b7", 380)):
        tensorflow = f"tf_efficientnet_{size}"
        for name, variant in (
            (f"efficientnet-{size}", f"efficientnet_{size}"),
            (f"tf-efficientnet-{size}", tensorflow),
        ):
            build = _timm(variant, "classifier", published_as=tensorflow)
            found.append(Architecture(name, face, side, 1, "Tan and Le 2019", build))
    return found


def _speech() -> list[Architecture]:
    speech = Modality.SPEECH
    return [
        Architecture(
            "aasist",
            speech,
            aasist.INPUT_SAMPLES,
            0,
            "Jung et al. 2022",
            _own(lambda _: aasist.Aasist(aasist.AASIST_CONFIGURATION)),
        ),
        Architecture(
            "aasist-l",
            speech,
            aasist.INPUT_SAMPLES,
            0,
            "Jung et al. 2022",
            _own(lambda _: aasist.Aasist(aasist.AASIST_L_CONFIGURATION)),
        ),
        Architecture("rawnet2", speech, rawnet.INPUT_SAMPLES, 0, "Tak et al. 2021", _own(lambda _: rawnet.RawNet2())),
    ]


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {architecture.name: architecture for architecture in (*_faces(), *_speech())}
)
"""By the name that the command takes."""


def built(architecture: Architecture, path: Path, gradient: str = ladeda.NPR) -> nn.Module:
    """The network filled with a checkpoint, ready to answer.

    Raises:
        CheckpointError: the checkpoint is not one of this architecture.
    """
    model = architecture.build(path, gradient).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=False)
    if not all(bool(torch.isfinite(value).all()) for value in model.state_dict().values()):
        raise CheckpointError(f"{path.name} holds numbers that are not finite")
    return model
