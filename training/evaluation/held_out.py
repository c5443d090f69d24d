"""What each served model was trained on, and the figures that its training measured on held-out groups.

The spoof classifier learns from all of the shared speech and is measured there by cross-validation: its card holds
the fair figures, and re-scoring the same utterances with the final weights would flatter it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.common.models import ModelRepository
from training.evaluation.degradation import SOUND_CONDITIONS
from training.evaluation.summary import DEGRADED, Summary, from_card

SPEECH_MODEL = "spoof_classifier"


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


def with_speech(summary: Summary, models: Path) -> Summary:
    """The summary with the cross-validated figures of speech; ``all`` then means all utterances."""
    repository = ModelRepository(models)
    if SPEECH_MODEL not in repository.names():
        return summary
    table = from_card(repository.card(SPEECH_MODEL).details.get("metrics", {}))
    named = {f"{DEGRADED}{name}" if name in SOUND_CONDITIONS else name: row for name, row in table.items()}
    return {**summary, "audio": {**summary["audio"], **named}}


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
