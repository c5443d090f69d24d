from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from services.common.evidence import Branch, BranchReport, Outcome
from services.fusion.features import BRANCH_FEATURES, is_probability
from services.fusion.heads import FORMAT, MANIFEST, branch_sets, head_key, transform_of
from services.fusion.store import HeadStore

# How fast a busy machine is says nothing of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def scored(branch: Branch, value: float) -> BranchReport:
    """A report whose every probability is ``value`` and whose every count is 3."""
    features = {name: value if is_probability(name) else 3.0 for name in BRANCH_FEATURES[branch]}
    return BranchReport(branch, Outcome.SCORED, score=value, features=features, model=f"{branch}/1")


def head_json(branches: frozenset[Branch]) -> dict[str, Any]:
    """A head in which each probability speaks for itself and counts say nothing."""
    names = [name for branch, own in BRANCH_FEATURES.items() if branch in branches for name in own]
    return {
        "branches": [branch.value for branch in BRANCH_FEATURES if branch in branches],
        "features": names,
        "transforms": [transform_of(name) for name in names],
        "scaler": {"mean": [0.1] * len(names), "scale": [1.5] * len(names)},
        "coefficients": [1.0 if is_probability(name) else 0.0 for name in names],
        "intercept": -3.0,
        "temperature": 1.25,
        "training": {"clips": 10},
    }


def policy_json(name: str, deepfake: float, authentic: float) -> dict[str, Any]:
    return {
        "name": name,
        "thresholds": {"*": {"deepfake": deepfake, "authentic": authentic, "false_positive_bound": 0.07}},
        "authentic_needs": [["frame"], ["temporal"]],
        "deepfake_needs": [["frame"], ["temporal"], ["audio"], ["sync"]],
    }


def write_heads(directory: Path) -> Path:
    """A complete set of heads with two policies and a manifest."""
    contents = {f"{head_key(branches)}.json": head_json(branches) for branches in branch_sets()}
    contents["policies/balanced.json"] = policy_json("balanced", 0.8, 0.2)
    contents["policies/cautious.json"] = policy_json("cautious", 0.95, 0.05)
    (directory / "policies").mkdir(parents=True)
    files = {}
    for name, content in contents.items():
        encoded = json.dumps(content).encode()
        (directory / name).write_bytes(encoded)
        files[name] = hashlib.sha256(encoded).hexdigest()
    (directory / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}))
    return directory


def resign(directory: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed."""
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    (directory / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def heads_directory(tmp_path: Path) -> Path:
    return write_heads(tmp_path / "heads")


@pytest.fixture
def store(heads_directory: Path) -> HeadStore:
    loaded = HeadStore(heads_directory)
    loaded.refresh()
    return loaded
