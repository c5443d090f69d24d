"""A linear unit on frozen, shallow ImageNet features: what fine-tuning forgets.

Forgeries that nobody trained on differ from the known ones in what they show more than in how they were rendered.
The early stages of an ImageNet network respond to rendering (edges, grain, up-sampling), see no identity, and are
not bent towards known forgeries here; a strongly regularised linear unit on their means and deviations is all that
is learnt (after Ojha, Li and Lee 2023, who keep a whole network frozen; deeper features did not carry over here).

The same features tell how much a crop looks like the swaps that the frame classifier learnt from: a second unit on
them, which never sees what is real and what is fake, is the ensemble's gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from services.visual.crops import square_crop
from training.calibration import cell_weights
from training.data import folds
from training.frame.augmentation import degrade, jitter_box
from training.frame.faces import FaceSet
from training.frame.network import FrameClassifier, load_imagenet_weights
from training.frame.selection import training_rows
from training.metrics import Measure, measure

Floats = npt.NDArray[np.float64]
SIDE = 192
STAGES = 3
"""Stages of EfficientNet-Lite0 that are read, those of strides 2, 4 and 8."""
STRENGTH = 1e-4
"""Inverse L2 penalty; weaker ones fit the sources trained on and lose the others."""
GATE_STRENGTH = 1e-2
"""Inverse L2 penalty of the gate: from 1e-4 to 1e-1 unseen sources and DFDC stay within a hundredth of AUC."""
FAMILIAR = 2000
"""Crops of the set of swaps that the gate learns from; half of them once more, degraded."""
FOLDS = 5


class ShallowProbe(nn.Module):
    """Takes uint8 crops, answers a logit and how familiar each is; only the two linear units are ever trained."""

    def __init__(self) -> None:
        super().__init__()
        whole = FrameClassifier(SIDE)
        load_imagenet_weights(whole)
        backbone = whole.backbone.eval()
        self.stem, self.norm = backbone.conv_stem, backbone.bn1
        self.stages = nn.ModuleList(list(backbone.blocks)[:STAGES])
        with torch.inference_mode():
            width = self.features(torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8)).shape[1]
        self.unit, self.gate = nn.Linear(width, 1), nn.Linear(width, 1)
        self.eval()  # normalisation is frozen too, and nothing here trains by gradient

    def features(self, crops: Tensor) -> Tensor:
        """Mean and deviation of every channel of every stage: [n, width] of uint8 crops [n, side, side, 3] RGB."""
        pixels = crops.permute(0, 3, 1, 2).to(torch.float32)
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", align_corners=False)
        values = self.norm(self.stem(((pixels - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)))
        found = []
        for stage in self.stages:
            values = stage(values)
            mean = values.mean(dim=(2, 3), keepdim=True)
            deviation = (values - mean).square().mean(dim=(2, 3)).sqrt()
            found += [mean[:, :, 0, 0], deviation]
        return torch.cat(found, dim=1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logit [n, 1] and log-odds [n, 1] of being familiar, of uint8 crops."""
        features = self.features(crops)
        return self.unit(features), self.gate(features)


@dataclass(frozen=True, slots=True)
class FittedProbe:
    """A probe, and how it did on whole sources that its unit was not fitted on."""

    probe: ShallowProbe
    across_sources: dict[str, Measure]


def fit_probe(mixed: FaceSet, swaps: FaceSet, seed: int) -> FittedProbe:
    """Fit both units on the training rows of the mixed set, each as it is and once degraded.

    Args:
        mixed: the set of many methods.
        swaps: the set of swaps, which is what is familiar.
        seed: of how crops are degraded, and of which swaps are taken.
    """
    probe = ShallowProbe()
    rows = training_rows(mixed.examples)
    values = np.concatenate([_features(probe, _crops(mixed, rows)), _features(probe, _degraded(mixed, rows, seed))])
    labels = np.tile(mixed.labels[rows], 2)
    sources = [mixed.examples[row].fields["source"] for row in rows.tolist()] * 2
    log_odds, dealt = np.zeros(len(labels)), folds(sources, FOLDS, seed)
    for fold in np.unique(dealt):
        learnt = dealt != fold
        weights, bias = fit_unit(values[learnt], labels[learnt], [sources[at] for at in np.flatnonzero(learnt)])
        log_odds[~learnt] = values[~learnt] @ weights + bias
    clean = slice(0, len(rows))
    across = measure(labels[clean], log_odds[clean], sources[clean], probabilities=False)
    weights, bias = fit_unit(values, labels, sources)
    _set(probe.unit, weights, bias)
    _set(probe.gate, *_fit_gate(probe, values, swaps, seed))
    return FittedProbe(probe, across)


def _fit_gate(probe: ShallowProbe, unfamiliar: Floats, swaps: FaceSet, seed: int) -> tuple[Floats, float]:
    """Weights and bias that tell crops of the set of swaps, real and fake alike, from other crops' features."""
    rows = np.random.default_rng(seed).choice(len(swaps.examples), FAMILIAR, replace=False)
    degraded = _features(probe, _degraded(swaps, rows[: FAMILIAR // 2], seed))
    familiar = np.concatenate([_features(probe, _crops(swaps, rows)), degraded])
    values = np.concatenate([familiar, unfamiliar])
    labels = np.repeat([1, 0], [len(familiar), len(unfamiliar)])
    return _logistic(values, labels, cell_weights(labels, [""] * len(labels)), GATE_STRENGTH)


def _set(unit: nn.Linear, weights: Floats, bias: float) -> None:
    with torch.no_grad():
        unit.weight.copy_(torch.from_numpy(weights)[None])
        unit.bias.fill_(bias)


def fit_unit(
    values: Floats, labels: npt.NDArray[np.int64], sources: Sequence[str], strength: float = STRENGTH
) -> tuple[Floats, float]:
    """Weights and bias on raw features; rows weigh by the square root of the balance between sources."""
    weights = np.sqrt(cell_weights(labels, sources))
    for label in (0, 1):
        weights[labels == label] *= len(labels) / 2 / weights[labels == label].sum()
    return _logistic(values, labels, weights, strength)


def _logistic(
    values: Floats, labels: npt.NDArray[np.int64], importance: Floats, strength: float
) -> tuple[Floats, float]:
    """Logistic regression on standardised features, as weights and bias on raw ones."""
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-6
    model = LogisticRegression(C=strength, max_iter=2000).fit((values - mean) / scale, labels, sample_weight=importance)
    coefficients = model.coef_[0] / scale
    return coefficients, float(model.intercept_[0] - coefficients @ mean)


def _crops(faces: FaceSet, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.uint8]]:
    return [faces.crop(int(row)) for row in rows]


def _degraded(faces: FaceSet, rows: npt.NDArray[np.int64], seed: int) -> list[npt.NDArray[np.uint8]]:
    made = []
    for row in rows.tolist():
        random = np.random.default_rng((seed, row))
        picture = degrade(faces.picture(row), random)
        made.append(square_crop(picture, jitter_box(faces.boxes[row], random)))
    return made


@torch.inference_mode()
def _features(probe: ShallowProbe, crops: Sequence[npt.NDArray[np.uint8]], batch: int = 16) -> Floats:
    parts = [np.stack(crops[at : at + batch]) for at in range(0, len(crops), batch)]
    return np.concatenate([probe.features(torch.from_numpy(part)).double().numpy() for part in parts])
