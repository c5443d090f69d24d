"""Decision policies: from a calibrated probability to AUTHENTIC, DEEPFAKE or INCONCLUSIVE.

A policy holds two thresholds for each head, with an abstain band between them, and rules of minimum
evidence. Thresholds are chosen at training for a target false-positive rate; the exact binomial bound
(Clopper and Pearson 1934) that goes with them holds for clips exchangeable with the calibration clips,
and for no others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.errors import InvalidInputError, ModelRepositoryError
from services.common.evidence import Branch, PolicyInfo, ReasonCode, Verdict
from services.fusion.heads import head_key, read_manifest, read_verified

POLICY_FOLDER = "policies"
ANY_HEAD = "*"
"""Key of thresholds that hold for every head without its own."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """DEEPFAKE at or above ``deepfake``, AUTHENTIC at or below ``authentic``, all in [0, 1].

    ``false_positive_bound`` is the upper 95 % bound on the share of bona fide clips called DEEPFAKE.
    """

    deepfake: float
    authentic: float
    false_positive_bound: float


NEVER = Thresholds(deepfake=1.0, authentic=0.0, false_positive_bound=0.0)
"""Thresholds where there is nothing to decide on."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A named decision rule.

    ``authentic_needs`` and ``deepfake_needs`` are the rules of minimum evidence: the verdict is open only
    when all branches of at least one of their sets have scored.
    """

    name: str
    thresholds: Mapping[str, Thresholds]
    authentic_needs: tuple[frozenset[Branch], ...]
    deepfake_needs: tuple[frozenset[Branch], ...]

    def info(self, branches: frozenset[Branch]) -> PolicyInfo:
        """The thresholds in force when exactly ``branches`` have scored."""
        chosen = self.thresholds.get(head_key(branches), self.thresholds.get(ANY_HEAD, NEVER))
        if not branches:
            chosen = NEVER
        return PolicyInfo(
            name=self.name,
            deepfake_threshold=chosen.deepfake,
            authentic_threshold=chosen.authentic,
            false_positive_bound=chosen.false_positive_bound,
        )

    def decide(self, branches: frozenset[Branch], probability: float | None) -> tuple[Verdict, tuple[ReasonCode, ...]]:
        """The verdict on a clip and its first ground.

        Args:
            branches: those that scored.
            probability: calibrated P(deepfake), or None when no head could be applied.
        """
        if probability is None or not branches:
            return Verdict.INCONCLUSIVE, (ReasonCode.TOO_LITTLE_EVIDENCE,)
        info = self.info(branches)
        if probability >= info.deepfake_threshold:
            if _enough(self.deepfake_needs, branches):
                return Verdict.DEEPFAKE, (ReasonCode.ABOVE_DEEPFAKE_THRESHOLD,)
            return Verdict.INCONCLUSIVE, (ReasonCode.TOO_LITTLE_EVIDENCE,)
        if probability <= info.authentic_threshold:
            if _enough(self.authentic_needs, branches):
                return Verdict.AUTHENTIC, (ReasonCode.BELOW_AUTHENTIC_THRESHOLD,)
            return Verdict.INCONCLUSIVE, (ReasonCode.TOO_LITTLE_EVIDENCE,)
        return Verdict.INCONCLUSIVE, (ReasonCode.WITHIN_ABSTAIN_BAND,)


def _enough(needs: tuple[frozenset[Branch], ...], branches: frozenset[Branch]) -> bool:
    return any(need <= branches for need in needs)


class PolicySet:
    """The policies a service knows, one of them its default."""

    def __init__(self, policies: Mapping[str, Policy], default: str) -> None:
        if default not in policies:
            raise ModelRepositoryError(f"there is no decision policy named {default}")
        self._policies = dict(policies)
        self.default = default

    def names(self) -> list[str]:
        """Names of all policies, sorted."""
        return sorted(self._policies)

    def get(self, name: str) -> Policy:
        """The policy of a name; the default for an empty one.

        Raises:
            InvalidInputError: there is no such policy.
        """
        policy = self._policies.get(name or self.default)
        if policy is None:
            known = ", ".join(self.names())
            raise InvalidInputError(f"unknown policy; known are {known}", reason="UNKNOWN_POLICY")
        return policy


def load_policies(heads: Path, own: Path | None, default: str) -> PolicySet:
    """Policies calibrated with the heads, and the operator's own ones, which win on equal names.

    Args:
        heads: directory of the heads; its manifest names the policies that belong to them.
        own: directory of further policies as JSON, or None.
        default: name of the policy used when a caller names none.

    Raises:
        ModelRepositoryError: a file is missing, altered or not a policy, or the default does not exist.
    """
    manifest = read_manifest(heads)
    listed = sorted(name for name in manifest if name.startswith(f"{POLICY_FOLDER}/"))
    loaded = [_parse_policy(name, read_verified(heads, name, manifest)) for name in listed]
    if own is not None:
        for path in sorted(own.glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ModelRepositoryError(f"policy {path.name} is not readable JSON") from error
            loaded.append(_parse_policy(path.name, content))
    return PolicySet({policy.name: policy for policy in loaded}, default)


def _parse_policy(name: str, content: Any) -> Policy:  # noqa: ANN401 - JSON
    try:
        thresholds = {
            str(key): Thresholds(
                deepfake=float(value["deepfake"]),
                authentic=float(value["authentic"]),
                false_positive_bound=float(value["false_positive_bound"]),
            )
            for key, value in content["thresholds"].items()
        }
        policy = Policy(
            name=str(content["name"]),
            thresholds=thresholds,
            authentic_needs=_parse_needs(content["authentic_needs"]),
            deepfake_needs=_parse_needs(content["deepfake_needs"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelRepositoryError(f"{name} cannot be read as a decision policy") from error
    for value in thresholds.values():
        if not 0.0 <= value.authentic < value.deepfake <= 1.0 or not 0.0 <= value.false_positive_bound <= 1.0:
            raise ModelRepositoryError(f"{name} holds thresholds that are out of range or out of order")
    if any(not need for need in (*policy.authentic_needs, *policy.deepfake_needs)):
        raise ModelRepositoryError(f"{name} would give a verdict on no evidence")
    return policy


def _parse_needs(content: list[list[str]]) -> tuple[frozenset[Branch], ...]:
    return tuple(frozenset(Branch(value) for value in need) for need in content)


def binomial_upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound on a rate (Clopper and Pearson 1934).

    Args:
        events: how often it happened, 0 to ``trials``.
        trials: independent trials, 0 or more.
        confidence: of the bound, in (0, 1).

    Returns:
        The largest rate under which ``events`` or fewer are no rarer than 1 - confidence; 1 without trials.
    """
    if events >= trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _binomial_cdf(events, trials, middle) > 1.0 - confidence:
            low = middle
        else:
            high = middle
    return high


def _binomial_cdf(events: int, trials: int, rate: float) -> float:
    """P(at most ``events`` of ``trials``) at a rate in (0, 1), summed in logarithms."""
    if rate >= 1.0:
        return 0.0
    total = 0.0
    for count in range(events + 1):
        ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
        chance = count * math.log(rate) if count else 0.0
        total += math.exp(ways + chance + (trials - count) * math.log1p(-rate))
    return total
