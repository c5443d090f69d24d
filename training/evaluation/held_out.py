"""What each served model was trained on, and the figures that its training measured on held-out groups.

Some models learn from all of the shared data, and are measured there by cross-validation: their cards and the
heads' own reports hold the fair figures, and re-scoring the same data with the final weights would flatter
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.common.models import ModelRepository
from training.evaluation.degradation import SOUND_CONDITIONS
from training.evaluation.rows import GENERATED
from training.evaluation.summary import ALL, DEGRADED, Figures, Summary, from_card
from training.forging import Forgery

CROSS_VALIDATED = {"audio": "spoof_classifier", "temporal": "temporal", "sync": "sync"}
"""Branches whose shared data was all trained on → the model whose card says how they did out of fold."""
RENAMED = {
    "sync": {
        "swapped, held-out identities": str(Forgery.DUBBED),
        "shifted, held-out identities": str(Forgery.SHIFTED),
        "still, held-out identities": str(Forgery.STILL),
    },
    "audio": {condition: f"{DEGRADED}{condition}" for condition in SOUND_CONDITIONS},
}
"""Branch → name of a source in the card → its name here."""


def statements(models: Path, heads: Path) -> list[str]:
    """One line a model: what it was trained on, how that was split, its headline."""
    repository = ModelRepository(models)
    lines = []
    for name in repository.names():
        card = repository.card(name)
        split = str(card.details.get("split", "")).rstrip(".")
        lines.append(f"`{name}`: trained on {card.trained_on}; split: {split}; {card.headline}.")
    key, training = largest_head(heads)
    if key:
        lines.append(f"fusion head `{key}`: {training.get('rows')}; split: {training.get('split')}.")
    return lines


def replaced(summary: Summary, models: Path, heads: Path) -> Summary:
    """The summary with cross-validated figures where the final weights saw the shared data.

    A branch without such figures keeps none at all, rather than flattering ones.
    """
    repository = ModelRepository(models)
    present = set(repository.names())
    fair = dict(summary)
    for branch, model in CROSS_VALIDATED.items():
        fair[branch] = _of_card(branch, repository.card(model).details) if model in present else {}
    fair["fused"] = from_card(largest_head(heads)[1].get("held_out", {}))
    return fair


def _of_card(branch: str, details: Mapping[str, Any]) -> dict[str, Figures]:
    renamed = RENAMED.get(branch, {})
    table = {renamed.get(name, name): row for name, row in from_card(details.get("metrics", {})).items()}
    if branch == "temporal" and ALL in table:
        table[GENERATED] = table[ALL]  # its card counts real and generated clips, and nothing else
    return table


def largest_head(heads: Path) -> tuple[str, Mapping[str, Any]]:
    """Name and training report of the head of most branches that was fitted itself; empty if there is none."""
    fitted: dict[str, Mapping[str, Any]] = {}
    for path in heads.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        training = content.get("training", {})
        if "branches" in content and "held_out" in training and "note" not in training:
            fitted[path.stem] = training
    best = max(fitted, key=lambda key: (key.count("_"), key), default="")
    return best, fitted.get(best, {})
