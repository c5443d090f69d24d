"""Which networks judge a single crop together, and how much each of them counts.

A classifier that saw thousands of forgeries of one kind knows those, and little else. So a gate says how much a crop
resembles the pictures that it learnt from, and two weighted sums of the same logits share the word accordingly: one
for familiar pictures, one for all others (a mixture of experts, Jacobs, Jordan, Nowlan and Hinton 1991, whose gate is
trained on its own and knows nothing of real and fake).

The weights were fitted on exact networks, so the file that holds them names each by its SHA-256, and a network
with other bytes is refused rather than weighed wrongly. Without the file the frame classifier judges alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from services.common.errors import ModelNotDeployedError, ModelRepositoryError
from services.common.models import ModelRepository
from services.visual.scoring import FRAME_MODEL, CropScore, sigmoid

FILE = "frame_ensemble.json"
"""In the model repository, beside the directories of the models."""


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Calibrated log-odds of a deepfake: the sum of the members' logits by ``weights``, plus ``bias``."""

    weights: Mapping[str, float]
    bias: float = 0.0

    def logit(self, logits: Mapping[str, float]) -> float:
        """The sum for one crop, from its logit by member."""
        return self.bias + sum(weight * logits[name] for name, weight in self.weights.items())


ALONE = WeightedSum(MappingProxyType({FRAME_MODEL: 1.0}))


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The networks over crops, and what they say together.

    Args:
        familiar: the sum for crops like those that the frame classifier knows well.
        unfamiliar: the sum for the others.
        gate: the member that says how familiar a crop is; with None every crop is.
    """

    familiar: WeightedSum = ALONE
    unfamiliar: WeightedSum = ALONE
    gate: str | None = None
    members: tuple[str, ...] = field(init=False)
    """Whom to ask, the frame classifier first."""

    def __post_init__(self) -> None:
        others = () if self.gate is None else (*self.unfamiliar.weights, self.gate)
        object.__setattr__(self, "members", tuple(dict.fromkeys((FRAME_MODEL, *self.familiar.weights, *others))))

    @property
    def companions(self) -> tuple[str, ...]:
        """The members beside the frame classifier."""
        return tuple(name for name in self.members if name != FRAME_MODEL)

    def combine(self, scores: Mapping[str, Sequence[CropScore]]) -> list[CropScore]:
        """The frame classifier's scores with the logits of all.

        Args:
            scores: by member, of the same crops in the same order.
        """
        combined = []
        for place, score in enumerate(scores[FRAME_MODEL]):
            of_crop = {name: own[place] for name, own in scores.items()}
            familiarity = 0.0 if self.gate is None else of_crop[self.gate].familiarity
            logit = self.logit({name: own.logit for name, own in of_crop.items()}, familiarity)
            combined.append(replace(score, logit=logit))
        return combined

    def logit(self, logits: Mapping[str, float], familiarity: float) -> float:
        """What all say of one crop.

        Args:
            logits: by member.
            familiarity: log-odds, the gate's; without a gate it does not matter.
        """
        share = 1.0 if self.gate is None else float(sigmoid(familiarity))
        return share * self.familiar.logit(logits) + (1 - share) * self.unfamiliar.logit(logits)


def read_ensemble(repository: ModelRepository) -> Ensemble:
    """The ensemble of a model repository, each member checked against the hash in its card.

    Raises:
        ModelRepositoryError: the file is unreadable, or a member is absent or not the network it was fitted on.
    """
    path = repository.document(FILE)
    if not path.is_file():
        return Ensemble()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        hashes = {str(name): str(sha256) for name, sha256 in content["members"].items()}
        familiar, gate = _weighted_sum(content["familiar"]), content.get("gate")
        unfamiliar = ALONE if gate is None else _weighted_sum(content["unfamiliar"])
        ensemble = Ensemble(familiar, unfamiliar, None if gate is None else str(gate))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRepositoryError(f"{FILE} cannot be read as an ensemble") from error
    if set(ensemble.members) != set(hashes):
        raise ModelRepositoryError(f"{FILE} must name the hash of each network that it weighs, and of no other")
    for name, expected in hashes.items():
        _check(repository, name, expected)
    if gate is not None and "familiarity" not in repository.card(gate).details.get("outputs", {}):
        raise ModelRepositoryError(f"{FILE} lets {gate} say what is familiar, and its card has no such output")
    return ensemble


def _weighted_sum(content: Mapping[str, Any]) -> WeightedSum:
    """A sum as the file writes it; ValueError unless all its numbers are finite."""
    weights = {str(name): float(weight) for name, weight in content["weights"].items()}
    bias = float(content["bias"])
    if FRAME_MODEL not in weights or not all(map(math.isfinite, (bias, *weights.values()))):
        raise ValueError(f"finite weights are needed, one of them of {FRAME_MODEL}")
    return WeightedSum(MappingProxyType(weights), bias)


def _check(repository: ModelRepository, name: str, expected: str) -> None:
    try:
        found = repository.card(name).sha256
    except ModelNotDeployedError as error:
        raise ModelRepositoryError(f"{FILE} names {name}, which the model repository does not hold") from error
    if found != expected:
        raise ModelRepositoryError(
            f"{FILE} was fitted on another {name} ({expected[:12]}) than the one served ({found[:12]}): "
            "fit it again, or put the network back"
        )
