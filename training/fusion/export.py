"""Writes heads and policies as JSON with the manifest that readiness checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.common.evidence import Branch
from services.fusion.features import BRANCH_FEATURES
from services.fusion.heads import FORMAT, MANIFEST, head_key, transform_of
from services.fusion.policy import POLICY_FOLDER, Thresholds
from training.fusion.calibration import AUTHENTIC_NEEDS, DEEPFAKE_NEEDS, Target
from training.fusion.fitting import Fit, feature_names

DIGITS = 9


def head_document(branches: frozenset[Branch], fit: Fit, temperature: float, report: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """One head as JSON content."""
    names = feature_names(branches)
    return {
        "branches": [branch.value for branch in BRANCH_FEATURES if branch in branches],
        "features": list(names),
        "transforms": [transform_of(name) for name in names],
        "scaler": {"mean": _rounded(fit.mean), "scale": _rounded(fit.scale)},
        "coefficients": _rounded(fit.coefficients),
        "intercept": round(float(fit.intercept), DIGITS),
        "temperature": round(temperature, DIGITS),
        "training": dict(report),
    }


def policy_document(target: Target, thresholds: Mapping[str, Thresholds], report: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """One policy as JSON content."""
    return {
        "name": target.name,
        "description": target.description,
        "target_false_positive_rate": target.false_positive_rate,
        "target_miss_rate": target.miss_rate,
        "authentic_needs": [[branch.value for branch in need] for need in AUTHENTIC_NEEDS],
        "deepfake_needs": [[branch.value for branch in need] for need in DEEPFAKE_NEEDS],
        "thresholds": {
            key: {
                "deepfake": value.deepfake,
                "authentic": value.authentic,
                "false_positive_bound": value.false_positive_bound,
            }
            for key, value in thresholds.items()
        },
        "calibration": dict(report),
    }


def write_set(directory: Path, heads: Mapping[frozenset[Branch], Any], policies: Mapping[str, Any]) -> Path:
    """Write all heads and policies, and last the manifest, so that a set is never half valid.

    Returns:
        The manifest's path.
    """
    (directory / POLICY_FOLDER).mkdir(parents=True, exist_ok=True)
    documents = {f"{head_key(branches)}.json": content for branches, content in heads.items()}
    documents |= {f"{POLICY_FOLDER}/{name}.json": content for name, content in policies.items()}
    files = {}
    for name, content in sorted(documents.items()):
        encoded = (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
        (directory / name).write_bytes(encoded)
        files[name] = hashlib.sha256(encoded).hexdigest()
    path = directory / MANIFEST
    path.write_text(json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n", encoding="utf-8")
    return path


def _rounded(values: Any) -> list[float]:  # noqa: ANN401 - any array
    return [round(float(value), DIGITS) for value in values]
