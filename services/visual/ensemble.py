"""Which networks judge a single crop together, and how much each of them counts.

The weights were fitted on exact networks, so the file that holds them names each by its SHA-256, and a network
with other bytes is refused rather than weighed wrongly. Without the file the frame classifier judges alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from services.common.errors import ModelNotDeployedError, ModelRepositoryError
from services.common.models import ModelRepository
from services.visual.scoring import FRAME_MODEL, CropScore

FILE = "frame_ensemble.json"
"""In the model repository, beside the directories of the models."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The networks over crops and the weight of each one's logit; their weighted sum plus ``bias`` is calibrated."""

    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({FRAME_MODEL: 1.0}))
    bias: float = 0.0

    @property
    def companions(self) -> tuple[str, ...]:
        """The members beside the frame classifier."""
        return tuple(name for name in self.weights if name != FRAME_MODEL)

    def combine(self, scores: Mapping[str, Sequence[CropScore]]) -> list[CropScore]:
        """The frame classifier's scores with the logits of all.

        Args:
            scores: by member, of the same crops in the same order.
        """
        of_members = [(weight, scores[name]) for name, weight in self.weights.items()]
        return [
            replace(score, logit=self.bias + sum(weight * own[place].logit for weight, own in of_members))
            for place, score in enumerate(scores[FRAME_MODEL])
        ]


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
        weights = {str(member["model"]): float(member["weight"]) for member in content["members"]}
        hashes = {str(member["model"]): str(member["sha256"]) for member in content["members"]}
        bias = float(content["bias"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelRepositoryError(f"{FILE} cannot be read as an ensemble") from error
    if FRAME_MODEL not in weights or not all(map(math.isfinite, (bias, *weights.values()))):
        raise ModelRepositoryError(f"{FILE} must give finite weights, one of them to {FRAME_MODEL}")
    for name, expected in hashes.items():
        _check(repository, name, expected)
    return Ensemble(MappingProxyType(weights), bias)


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
