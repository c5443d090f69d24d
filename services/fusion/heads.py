"""Fusion heads: one calibrated logistic regression for every set of branches that can answer together.

Heads are JSON, so that nothing executable is ever loaded; a manifest beside them holds the SHA-256 of
every file, and nothing is served that differs from it. Temperature scaling is that of Guo et al. 2017,
"On Calibration of Modern Neural Networks": the log-odds divided by one number fitted on held-out clips.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.common.errors import ModelRepositoryError
from services.common.evidence import Branch, Contribution, ModelInfo
from services.common.models import HEADS
from services.fusion.features import BRANCH_FEATURES, is_probability

MANIFEST = "manifest.json"
FORMAT = 1
HEAD_ENGINE = "head"
INTERCEPT = "intercept"
"""Name under which the constant term appears among the contributions."""
LARGEST_PROBABILITY = 0.995
"""Probabilities count as no larger than this, so that no single branch can shout."""


def branch_sets() -> list[frozenset[Branch]]:
    """Every non-empty set of branches, smallest first: 31 of them."""
    order = tuple(BRANCH_FEATURES)
    return [frozenset(chosen) for size in range(1, len(order) + 1) for chosen in combinations(order, size)]


def head_key(branches: Iterable[Branch]) -> str:
    """Name of the head of a set of branches: their names in feature order, joined by underscores."""
    wanted = frozenset(branches)
    return "_".join(branch.value for branch in BRANCH_FEATURES if branch in wanted)


def surprisal(probability: float) -> float:
    """Evidence for a forgery in nats, -ln(1 - p): 0 when a branch sees nothing, and never below.

    Log-odds would let a branch that sees nothing speak for the clip, but lips in perfect step say nothing of
    whether the face was generated. Sums of surprisals are what independent causes combine by (noisy OR,
    Pearl 1988).
    """
    return -math.log1p(-min(probability, LARGEST_PROBABILITY))


TRANSFORMS: Mapping[str, Callable[[float], float]] = MappingProxyType({"surprisal": surprisal, "log1p": math.log1p})
"""What may be done to a feature before it is standardised, by name."""


def transform_of(feature: str) -> str:
    """Transform of a feature: probabilities as surprisal, counts as the logarithm of one more."""
    return "surprisal" if is_probability(feature) else "log1p"


@dataclass(frozen=True, slots=True)
class Term:
    """One feature of a head: its transform, standardisation and weight."""

    feature: str
    transform: str
    mean: float
    scale: float
    coefficient: float

    def log_odds(self, value: float) -> float:
        """Weight times the standardised value, before temperature."""
        return self.coefficient * (TRANSFORMS[self.transform](value) - self.mean) / self.scale


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted logistic regression over the features of exactly ``branches``.

    ``training`` is the report of how it was fitted and how it did on held-out groups.
    """

    branches: frozenset[Branch]
    terms: tuple[Term, ...]
    intercept: float
    temperature: float
    sha256: str
    training: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Name of the head, for instance ``patch_frame_audio``."""
        return head_key(self.branches)

    def contributions(self, features: Mapping[str, float]) -> tuple[Contribution, ...]:
        """What each feature adds to the log-odds after temperature; they sum to the calibrated log-odds.

        Args:
            features: name → value with at least this head's features.

        Returns:
            One contribution a feature in feature order, and last the intercept.
        """
        parts = [
            Contribution(
                feature=term.feature,
                value=features[term.feature],
                log_odds=term.log_odds(features[term.feature]) / self.temperature,
            )
            for term in self.terms
        ]
        return (*parts, Contribution(INTERCEPT, 1.0, self.intercept / self.temperature))

    def probability(self, features: Mapping[str, float]) -> float:
        """Calibrated P(deepfake), in (0, 1)."""
        return sigmoid(sum(part.log_odds for part in self.contributions(features)))


def sigmoid(log_odds: float) -> float:
    """Probability of natural log-odds, without overflow."""
    if log_odds >= 0:
        return 1.0 / (1.0 + math.exp(-log_odds))
    return math.exp(log_odds) / (1.0 + math.exp(log_odds))


def load_heads(directory: Path) -> dict[frozenset[Branch], Head]:
    """Read all heads, each checked against the manifest and against the fixed feature order.

    Raises:
        ModelRepositoryError: a file is missing, altered or not a fitted head; says which.
    """
    manifest = read_manifest(directory)
    heads = {}
    for branches in branch_sets():
        name = f"{head_key(branches)}.json"
        heads[branches] = _parse_head(name, read_verified(directory, name, manifest), manifest[name])
        if heads[branches].branches != branches:
            raise ModelRepositoryError(f"{name} is the head of other branches than its name says")
    return heads


def head_set(directory: Path, version: str) -> ModelInfo:
    """Which set of heads this is, by the hash of its manifest.

    Raises:
        ModelRepositoryError: there is no readable manifest.
    """
    try:
        digest = hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelRepositoryError(f"{MANIFEST} of the fusion heads is missing or unreadable") from error
    return ModelInfo(HEADS, version, digest, HEAD_ENGINE)


def read_manifest(directory: Path) -> dict[str, str]:
    """File name → SHA-256 of everything that belongs to a set of heads.

    Raises:
        ModelRepositoryError: there is no readable manifest.
    """
    try:
        content = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ModelRepositoryError(f"{MANIFEST} of the fusion heads has an unknown format")
        return {str(name): str(digest) for name, digest in content["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelRepositoryError(f"{MANIFEST} of the fusion heads is missing or unreadable") from error


def read_verified(directory: Path, name: str, manifest: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Content of one JSON file whose bytes are those of the manifest.

    Raises:
        ModelRepositoryError: it is missing, altered or no JSON.
    """
    try:
        content = (directory / name).read_bytes()
    except OSError as error:
        raise ModelRepositoryError(f"{name} of the fusion heads is missing") from error
    if hashlib.sha256(content).hexdigest() != manifest.get(name):
        raise ModelRepositoryError(f"{name} is not the file its manifest describes (its SHA-256 differs)")
    try:
        return json.loads(content)
    except ValueError as error:
        raise ModelRepositoryError(f"{name} is not JSON") from error


def _parse_head(name: str, content: Any, digest: str) -> Head:  # noqa: ANN401 - JSON
    try:
        branches = frozenset(Branch(value) for value in content["branches"])
        columns = (
            content["features"],
            content["transforms"],
            content["scaler"]["mean"],
            content["scaler"]["scale"],
            content["coefficients"],
        )
        rows = zip(*columns, strict=True)
        terms = tuple(Term(str(a), str(b), float(c), float(d), float(e)) for a, b, c, d, e in rows)
        head = Head(
            branches=branches,
            terms=terms,
            intercept=float(content["intercept"]),
            temperature=float(content["temperature"]),
            sha256=digest,
            training=dict(content["training"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelRepositoryError(f"{name} cannot be read as a fusion head") from error
    fault = _fault_of(head)
    if fault:
        raise ModelRepositoryError(f"{name} is not a usable fusion head: {fault}")
    return head


def _fault_of(head: Head) -> str:
    """What is wrong with a head, or an empty text."""
    expected = [name for branch, names in BRANCH_FEATURES.items() if branch in head.branches for name in names]
    if [term.feature for term in head.terms] != expected:
        return "its features are not those of its branches in the fixed order"
    if any(term.transform not in TRANSFORMS for term in head.terms):
        return "it names an unknown transform"
    numbers = [head.intercept, head.temperature]
    numbers += [number for term in head.terms for number in (term.mean, term.scale, term.coefficient)]
    if not all(math.isfinite(number) for number in numbers):
        return "it holds a number that is not finite"
    if head.temperature <= 0 or any(term.scale <= 0 for term in head.terms):
        return "a scale or the temperature is not positive"
    if not head.training:
        return "it does not say how it was trained"
    return ""
