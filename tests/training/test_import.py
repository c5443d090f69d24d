"""Import of published checkpoints: what is accepted, what is refused, and that the graph is the network."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from tests.training.published import Shapes, filled, ladeda, rawnet2, tiny_ladeda, write_keras_meso4
from training.checkpoints.__main__ import main
from training.checkpoints.catalogue import ARCHITECTURES, built
from training.checkpoints.importing import ImportRequest, import_checkpoint
from training.checkpoints.weights import CheckpointError, read_keras
from training.data import data_root
from training.torch_setup import prepare

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]

PUBLISHED = data_root() / "checkpoints"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def saved(state: dict[str, torch.Tensor], folder: Path, **around: object) -> Path:
    path = folder / "checkpoint.pth"
    torch.save({**around, "state_dict": state} if around else state, path)
    return path


def timm_state(name: str, classes: int) -> dict[str, torch.Tensor]:
    prepare()
    import timm  # noqa: PLC0415 - needs torchvision's operators declared first

    torch.manual_seed(0)
    return dict(timm.create_model(name, pretrained=False, num_classes=classes).state_dict())


def brought_in(architecture: str, checkpoint: Path, repository: Path, **more: object) -> str:
    request = ImportRequest(architecture, checkpoint, "CC0-1.0", repository, **more)  # type: ignore[arg-type]
    return import_checkpoint(request).name


@pytest.mark.parametrize(
    ("architecture", "shapes"), [("tiny-ladeda", tiny_ladeda), ("ladeda", ladeda), ("rawnet2", rawnet2)]
)
def test_published_names_and_shapes_are_accepted(
    architecture: str, shapes: Callable[[], Shapes], repository: Path, tmp_path: Path
) -> None:
    size = 64 if architecture == "ladeda" else None  # at full size it takes a second a picture
    name = brought_in(architecture, saved(filled(shapes()), tmp_path), repository, size=size)
    card = ModelRepository(repository).verified(name)
    assert card.licence == "CC0-1.0"
    assert "not measured here" in card.headline
    assert card.details["parity"]["inputs"] == 16
    assert card.details["parity"]["largest_difference"] <= 1e-4


def test_tiny_ladeda_is_tiny() -> None:
    counted = [value for name, value in filled(tiny_ladeda()).items() if "running" not in name and "num_" not in name]
    assert sum(value.numel() for value in counted) == 1297


@pytest.mark.parametrize(
    "given",
    [
        ("resnet18", "resnet18", 1, 64),
        ("efficientnet-b0", "efficientnet_b0", 2, None),
        ("tf-efficientnet-b0", "tf_efficientnet_b0", 1, 64),
        ("efficientnet-b4", "efficientnet_b4", 1, 64),
        ("xception", "legacy_xception", 2, 96),
    ],
)
def test_timm_state_dicts_are_accepted(
    given: tuple[str, str, int, int | None], repository: Path, tmp_path: Path
) -> None:
    architecture, network, classes, size = given
    name = brought_in(architecture, saved(timm_state(network, classes), tmp_path, epoch=3), repository, size=size)
    crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    outputs = EmbeddedEngine(ModelRepository(repository)).run(name, {"crops": crops})
    assert outputs["logit"].shape == (3, 1)
    assert outputs["logit"].dtype == np.float32


def test_dfdc_winners_naming_is_accepted(repository: Path, tmp_path: Path) -> None:
    encoder = timm_state("tf_efficientnet_b7", 1000)
    state = {f"module.encoder.{name}": value for name, value in encoder.items()}
    state |= {"module.fc.weight": torch.randn(1, 2560) * 0.02, "module.fc.bias": torch.zeros(1)}
    path = saved(state, tmp_path, epoch=20, bce_best=0.2)
    name = brought_in("efficientnet-b7", path, repository, size=64)
    network = built(ARCHITECTURES["efficientnet-b7"], path)
    assert network.classifier.weight.equal(state["module.fc.weight"])
    assert network.conv_stem.weight.equal(state["module.encoder.conv_stem.weight"])
    assert ModelRepository(repository).verified(name)


def test_faceforensics_naming_is_accepted(tmp_path: Path) -> None:
    state = timm_state("legacy_xception", 2)
    published = {}
    for name, value in state.items():
        kept = value[:, :, 0, 0] if name.endswith("pointwise.weight") else value
        published[f"model.{name.replace('fc.', 'last_linear.1.')}"] = kept
    network = built(ARCHITECTURES["xception"], saved(published, tmp_path))
    assert all(value.equal(state[name]) for name, value in network.state_dict().items())


def test_keras_layers_follow_the_order_in_which_they_were_made(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "meso.h5"
    write_keras_meso4(str(path), first=8, nested=True)  # 8, 9, 10, 11: as text, 10 would come first
    layers = read_keras(path)
    assert [name for name in layers if name.startswith("conv")] == [f"conv2d_{number}" for number in (8, 9, 10, 11)]
    assert brought_in("meso4", path, repository) == "imported_meso4"


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the published checkpoints (BONAFIDE_DATA)")
@pytest.mark.parametrize(
    ("architecture", "file"),
    [
        ("meso4", "Meso4_DF.h5"),
        ("mesoinception4", "MesoInception_DF.h5"),
        ("aasist", "AASIST.pth"),
        ("aasist", "AASIST-ASVspoof5-baseline.pth"),
        ("aasist-l", "AASIST-L.pth"),
    ],
)
def test_published_checkpoints_load(architecture: str, file: str) -> None:
    network = built(ARCHITECTURES[architecture], PUBLISHED / file)
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the published checkpoints (BONAFIDE_DATA)")
def test_a_published_speech_network_is_served_for_any_length(repository: Path) -> None:
    name = brought_in("aasist-l", PUBLISHED / "AASIST-L.pth", repository)
    engine = EmbeddedEngine(ModelRepository(repository))
    for length in (16_000, 64_600, 70_000):
        samples = 0.05 * np.random.default_rng(length).standard_normal((2, length)).astype(np.float32)
        assert engine.run(name, {"samples": samples})["logit"].shape == (2, 1)


def test_the_class_that_means_fake_can_be_said(repository: Path, tmp_path: Path) -> None:
    path = saved(filled(tiny_ladeda()), tmp_path)
    usual = brought_in("tiny-ladeda", path, repository, name="usual")
    turned = brought_in("tiny-ladeda", path, repository, name="turned", fake_class=0)
    crops = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    engine = EmbeddedEngine(ModelRepository(repository))
    assert np.allclose(
        engine.run(usual, {"crops": crops})["logit"], -engine.run(turned, {"crops": crops})["logit"], atol=1e-6
    )


def test_other_names_shapes_and_numbers_are_refused(repository: Path, tmp_path: Path) -> None:
    state = filled(tiny_ladeda())
    spoilt = [
        ({name: value for name, value in state.items() if name != "fc.bias"}, "lacks fc.bias"),
        ({**state, "fc2.weight": torch.zeros(1)}, "unknown fc2.weight"),
        ({**state, "fc.weight": torch.zeros(2, 8)}, "other shapes for fc.weight"),
        ({**state, "fc.bias": torch.tensor([float("nan")])}, "not finite"),
    ]
    for wrong, sentence in spoilt:
        with pytest.raises(CheckpointError, match=sentence):
            brought_in("tiny-ladeda", saved(wrong, tmp_path), repository)
    assert list(repository.iterdir()) == []


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code was run",))


def test_a_checkpoint_that_could_run_code_is_refused(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": filled(tiny_ladeda()), "more": Payload()}, path)
    with pytest.raises(CheckpointError, match="plain weights"):
        brought_in("tiny-ladeda", path, repository)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="plain weights"):
        brought_in("tiny-ladeda", path, repository)
    assert "code was run" not in capsys.readouterr().out


def test_a_model_is_replaced_only_when_asked(repository: Path, tmp_path: Path) -> None:
    path = saved(filled(tiny_ladeda()), tmp_path)
    name = brought_in("tiny-ladeda", path, repository)
    with pytest.raises(CheckpointError, match="already holds"):
        brought_in("tiny-ladeda", path, repository)
    before = ModelRepository(repository).card(name).sha256
    brought_in("tiny-ladeda", saved(filled(tiny_ladeda(), seed=1), tmp_path), repository, replace=True)
    assert ModelRepository(repository).verified(name).sha256 != before


def test_the_command_says_what_it_did_or_why_not(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(filled(tiny_ladeda()), tmp_path)
    arguments = ["tiny-ladeda", str(path), "--licence", "MIT", "--name", "mine", "--repository", str(repository)]
    assert main(arguments) == 0
    assert "mine: installed" in capsys.readouterr().out
    card = json.loads((repository / "mine" / "card.json").read_text())
    assert card["checkpoint"]["file"] == "checkpoint.pth"
    assert main(arguments) == 2
    assert "already holds mine" in capsys.readouterr().err
    assert main(["tiny-ladeda", str(tmp_path / "none.pth"), "--licence", "MIT", "--repository", str(repository)]) == 2
    unreachable = ["--replace", "--triton", "127.0.0.1:9"]
    assert main([*arguments, *unreachable]) == 2
    assert "did not load mine" in capsys.readouterr().err
