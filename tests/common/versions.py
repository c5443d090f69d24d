"""A model repository with several versions of one tiny model, and fusion heads that say what they were fitted on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from onnx import TensorProto

from benchmarks.reliability.tiny_models import GraphBuilder
from services.common.models import HEADS, ModelRepository

MODEL = "scorer"
CONFIG = """name: "scorer"
backend: "onnxruntime"
version_policy { all { } }
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "logit" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { count: 1 } ]
"""


def scorer(factor: float, offset: float = 0.0) -> bytes:
    """A graph whose log-odds are the mean of its input times ``factor`` plus ``offset``."""
    graph = GraphBuilder(MODEL)
    mean = graph.node("ReduceMean", [graph.take("x", TensorProto.FLOAT, ["n", 2]), graph.integers(1)], keepdims=1)
    graph.give("logit", graph.scaled(mean, factor, offset), ["n", 1])
    return graph.model().SerializeToString()


def write_card(card: Path, name: str, version: str, content: bytes, **more: Any) -> None:
    facts = {
        "name": name,
        "version": version,
        "sha256": hashlib.sha256(content).hexdigest(),
        "trained_on": "nothing: a test",
        "headline": "none: a test",
        "licence": "as this project",
    }
    card.write_text(json.dumps(facts | more))


def write_version(root: Path, version: str, content: bytes, *, at_root: bool = False) -> None:
    """Put a version of the model into a repository, with its card beside it or at the model's root."""
    folder = root / MODEL / version
    folder.mkdir(parents=True)
    (root / MODEL / "config.pbtxt").write_text(CONFIG)
    (folder / "model.onnx").write_bytes(content)
    write_card((folder.parent if at_root else folder) / "card.json", MODEL, version, content)


def write_heads_card(root: Path, version: str, fitted_on: dict[str, str]) -> None:
    """A staged set of heads of which only the card matters."""
    folder = root / HEADS / version
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(b"{}")
    write_card(folder / "card.json", HEADS, version, b"{}", models=fitted_on)


def write_plan(file: Path, **models: Any) -> None:
    """A rollout file; replaced in one step, as an operator's tools would."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({"format": 1, "models": models}))
    draft.replace(file)


def candidate(mode: str, share: float = 1.0, version: str = "2", **budgets: float) -> dict[str, Any]:
    return {"candidate": {"version": version, "mode": mode, "share": share, "budgets": budgets}}


def repository(root: Path) -> ModelRepository:
    """Version 1 at the root card."""
    write_version(root, "1", scorer(1.0), at_root=True)
    return ModelRepository(root)
