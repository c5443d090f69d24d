"""What each served model was trained on, and the figures that its training measured on held-out groups.

Some models learn from all of the shared data, and are measured there by cross-validation: their cards hold
the fair figures, and re-scoring the same data with the final weights would flatter them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.common.models import ModelRepository
from training.evaluation.degradation import SOUND_CONDITIONS
from training.evaluation.summary import DEGRADED, Figures, Summary, from_card

CROSS_VALIDATED = {"audio": "spoof_classifier", "temporal": "temporal", "sync": "sync"}
"""Branches whose shared data was all trained on → the model whose card says how they did out of fold."""
HEADS_REPORT = "report.json"
SUMMARY_KEY = "summary"


def statements(models: Path, heads: Path) -> list[str]:
    """One line a model: what it was trained on, how that was split, its headline."""
    repository = ModelRepository(models)
    lines = []
    for name in repository.names():
        card = repository.card(name)
        split = str(card.details.get("split", "")).rstrip(".")
        lines.append(f"`{name}`: trained on {card.trained_on}; split: {split}; {card.headline}.")
    found = _heads_report(heads)
    if found.get("split"):
        lines.append(f"fusion heads: {found['split']}.")
    return lines


def replaced(summary: Summary, models: Path, heads: Path) -> Summary:
    """The summary with cross-validated figures where the final weights saw the shared data.

    A branch without such figures keeps none at all, rather than flattering ones.
    """
    repository = ModelRepository(models)
    present = set(repository.names())
    fair = dict(summary)
    for branch, model in CROSS_VALIDATED.items():
        fair[branch] = _from_card(repository.card(model).details) if model in present else {}
    fair["fused"] = from_card(_heads_report(heads).get(SUMMARY_KEY, {}))
    return fair


def _from_card(details: Mapping[str, Any]) -> dict[str, Figures]:
    table = from_card(details.get("metrics", {}))
    return {f"{DEGRADED}{name}" if name in SOUND_CONDITIONS else name: figures for name, figures in table.items()}


def _heads_report(heads: Path) -> dict[str, Any]:
    path = heads / HEADS_REPORT
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
