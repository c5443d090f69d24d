"""Writes the card beside a served model: what it is, how it was trained, which bytes it must have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.metrics import Measure

Metrics = Mapping[str, Mapping[str, Measure]]
"""Figures by source, then by name."""


@dataclass(frozen=True, slots=True)
class Card:
    """The facts of one model. ``headline`` holds a figure with its interval and what it was measured on."""

    name: str
    task: str
    trained_on: str
    headline: str
    data: Sequence[str]
    split: str
    seed: int
    command: str
    metrics: Metrics
    licence: str
    limits: Sequence[str]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    version: str = "1"
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further entries, such as ``operating_point`` or ``calibration``."""


def write_card(card: Card, repository: Path) -> Path:
    """Write ``<repository>/<name>/card.json`` with the hash of the model file that lies there.

    Returns:
        The card's path.

    Raises:
        FileNotFoundError: the model file is not there.
        ValueError: the card says nothing of training, or an extra entry would hide a required one.
    """
    folder = repository / card.name
    if not card.trained_on or not card.headline or not card.metrics:
        raise ValueError(f"the card of {card.name} must say how it was trained and measured")
    facts = asdict(card)
    extra = facts.pop("extra")
    if facts.keys() & extra.keys():
        raise ValueError(f"extra entries hide required ones: {sorted(facts.keys() & extra.keys())}")
    facts["metrics"] = metrics_as_dict(card.metrics)
    facts["sha256"] = file_sha256(folder / card.version / "model.onnx")
    facts["date"] = datetime.now(UTC).date().isoformat()
    path = folder / "card.json"
    path.write_text(json.dumps(facts | extra, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def metrics_as_dict(metrics: Metrics) -> dict[str, dict[str, dict[str, float | int]]]:
    """Source → metric → ``{value, low, high, n}``."""
    return {source: {name: figure.as_dict() for name, figure in row.items()} for source, row in metrics.items()}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
