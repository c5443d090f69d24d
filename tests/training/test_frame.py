"""Frame classifier and patch gate: exact maps, parity with what is served, honest forgeries, repeatable runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from training.calibration import Line, cell_weights, fit_line  # noqa: E402
from training.cards import file_sha256  # noqa: E402
from training.crop_models import PARITY_TOLERANCE, REPOSITORY, parity_gap  # noqa: E402
from training.frame.__main__ import CalibratedFrameClassifier  # noqa: E402
from training.frame.blending import Face, self_blend  # noqa: E402
from training.frame.network import FrameClassifier, load_imagenet_weights  # noqa: E402
from training.patch.__main__ import CalibratedPatchGate, OperatingPoint, train  # noqa: E402
from training.patch.network import PatchGate  # noqa: E402

pytestmark = pytest.mark.training


def random_crops(count: int = 4) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def classifier() -> FrameClassifier:
    torch.manual_seed(0)
    model = FrameClassifier(160).eval()
    load_imagenet_weights(model)
    torch.nn.init.normal_(model.unit.weight, std=0.02)
    return model


def test_the_mean_of_the_activation_map_is_the_logit(classifier: FrameClassifier) -> None:
    with torch.inference_mode():
        logit, _, activation = CalibratedFrameClassifier(classifier, Line(0.7, -0.2))(torch.from_numpy(random_crops()))
    assert torch.allclose(activation.mean(dim=(1, 2)), logit[:, 0], atol=1e-4)


def test_imagenet_weights_are_really_loaded(classifier: FrameClassifier) -> None:
    fresh = dict(FrameClassifier(160).backbone.named_parameters())
    loaded = dict(classifier.backbone.named_parameters())
    assert not [name for name in fresh if torch.equal(fresh[name], loaded[name])]


def test_exported_patch_gate_equals_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.crop_models.REPOSITORY", tmp_path)
    from training.crop_models import export  # noqa: PLC0415

    model = CalibratedPatchGate(PatchGate(), Line(1.3, 0.4))
    path = export(model, "patch_gate", {"logit": "1", "patch_logits": "-1, -1"})
    assert parity_gap(model, path) <= PARITY_TOLERANCE


def test_patch_gate_is_tiny_and_sees_nine_pixels() -> None:
    model = PatchGate().eval()
    assert 1_000 <= sum(value.numel() for value in model.parameters()) <= 1_500
    for layer in model.layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.uniform_(layer.weight, 0.1, 1.0)
    pixels = torch.arange(64.0)[None, :, None, None] * torch.arange(64.0)[None, None, :, None] * torch.ones(3)
    pixels.requires_grad_(True)
    model(pixels)[1][0, 10, 10].backward()
    touched = pixels.grad.abs().sum(dim=(0, 3)).nonzero()
    assert (touched.max(dim=0).values - touched.min(dim=0).values + 1).max() <= 9


@pytest.mark.parametrize("name", ["frame_classifier", "patch_gate"])
def test_the_served_model_is_the_one_of_its_card(name: str) -> None:
    card = json.loads((REPOSITORY / name / "card.json").read_text())
    assert file_sha256(REPOSITORY / name / "1" / "model.onnx") == card["sha256"]
    for part in ("dfdc_faces_val", "unseen_sources", "mesonet_faces_train"):
        figure = card["metrics"][part]["auc"]
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["n"] > 100


def test_operating_point_keeps_its_bound() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    point = OperatingPoint.choose(random.normal(labels * 6.0), labels)
    assert point.lost_bound <= 0.01
    assert point.saved > 0.5
    assert point.to_card()["early_exit"] is True
    blind = OperatingPoint.choose(random.normal(size=4000), labels)
    assert blind.to_card()["early_exit"] is False


def test_calibration_recovers_a_known_line() -> None:
    random = np.random.default_rng(0)
    log_odds = random.normal(0, 2, 20_000)
    labels = (random.random(20_000) < 1 / (1 + np.exp(-log_odds))).astype(int)
    line = fit_line((log_odds - 1.0) / 0.5, labels, ["one"] * 20_000)
    assert line.scale == pytest.approx(0.5, abs=0.03)
    assert line.bias == pytest.approx(1.0, abs=0.08)


def test_every_label_and_every_cell_weighs_the_same() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    weights = cell_weights(labels, ["a", "a", "b", "a", "b", "b"])
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    assert weights[:2].sum() == pytest.approx(weights[2])


def test_a_self_blend_changes_the_face_and_little_else() -> None:
    from skimage.data import astronaut  # noqa: PLC0415

    pixels = np.ascontiguousarray(astronaut()[:224, 110:334])
    angles = np.linspace(0, 2 * np.pi, 478, endpoint=False)
    radius = np.linspace(10, 50, 478)
    points = np.stack([112 + radius * np.cos(angles), 112 + radius * np.sin(angles)], axis=1).astype(np.float32)
    random = np.random.default_rng(3)
    gaps = []
    for _ in range(12):
        real, fake = self_blend(Face(pixels, points), random)
        gap = np.abs(real.astype(int) - fake.astype(int)).mean(axis=2)
        gaps.append((gap[92:132, 92:132].mean(), gap[:12].mean()))
    inside, border = np.mean(gaps, axis=0)
    assert inside > 2 * border


class _Crops:
    """Batches whose label is plain to see."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        random = np.random.default_rng(number)
        crops = random.integers(100, 156, (8, 32, 32, 3), dtype=np.uint8)
        crops[1::2] = crops[1::2, :, ::-1] // 2 + 60
        return crops, np.tile(np.array([0, 1], np.float32), 4)


def test_the_same_seed_trains_the_same_gate() -> None:
    first, second = (train(_Crops(), steps=8, seed=5) for _ in range(2))  # type: ignore[arg-type]
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)
