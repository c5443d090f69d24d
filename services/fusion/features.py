"""From the ledger to the twelve named clip features, in their one fixed order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from services.common.errors import InvalidInputError
from services.common.evidence import Branch, BranchReport, Outcome

BRANCH_FEATURES: Mapping[Branch, tuple[str, ...]] = MappingProxyType(
    {
        Branch.PATCH: (
            "tiny_prob_mean",
            "tiny_prob_max",
            "tiny_prob_p90",
            "tiny_num_files",
            "tiny_num_patches",
        ),
        Branch.FRAME: ("visual_prob_mean", "visual_prob_max", "visual_prob_p90", "visual_num_faces"),
        Branch.AUDIO: ("audio_prob_fake",),
        Branch.TEMPORAL: ("temporal_prob_fake",),
        Branch.SYNC: ("sync_prob",),
    }
)
"""Features that each branch contributes when it scored."""

FEATURE_ORDER: tuple[str, ...] = tuple(name for names in BRANCH_FEATURES.values() for name in names)
"""All features, in the order in which heads read them."""


def is_probability(feature: str) -> bool:
    """Whether a feature is P(deepfake) in [0, 1]; the others are counts of 0 or more."""
    return "_num_" not in feature


def scored_branches(reports: Iterable[BranchReport]) -> frozenset[Branch]:
    """Branches that gave a score."""
    return frozenset(report.branch for report in reports if report.outcome is Outcome.SCORED)


def clip_features(reports: Iterable[BranchReport]) -> dict[str, float]:
    """Features of the branches that scored, in FEATURE_ORDER; nothing is imputed for the others.

    Args:
        reports: the ledger, at most one report a branch.

    Returns:
        Name → value: probabilities in [0, 1], counts of 0 or more.

    Raises:
        InvalidInputError: a branch is reported twice, or one that scored lacks a feature or gives one out
            of range.
    """
    by_branch: dict[Branch, BranchReport] = {}
    for report in reports:
        if report.branch in by_branch:
            raise InvalidInputError(f"the ledger has two reports of branch {report.branch}")
        by_branch[report.branch] = report
    features: dict[str, float] = {}
    for branch, names in BRANCH_FEATURES.items():
        found = by_branch.get(branch)
        if found is not None and found.outcome is Outcome.SCORED:
            features |= {name: _checked(found, name) for name in names}
    return features


def _checked(report: BranchReport, name: str) -> float:
    value = report.features.get(name)
    if value is None:
        raise InvalidInputError(f"branch {report.branch} scored without its feature {name}")
    upper = 1.0 if is_probability(name) else math.inf
    if not math.isfinite(value) or not 0.0 <= value <= upper:
        raise InvalidInputError(f"feature {name} of branch {report.branch} is out of range")
    return float(value)
