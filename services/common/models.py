"""The model repository: cards, hashes, and the refusal to serve what cannot be trusted.

Layout is Triton's: ``<root>/<name>/config.pbtxt`` and ``<root>/<name>/<version>/model.onnx``; beside them
``card.json`` says what the model is, how it was trained and which bytes it must have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.errors import ModelNotDeployedError, ModelRepositoryError


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The facts of one served model; ``details`` is the whole card as read from JSON."""

    name: str
    version: str
    sha256: str
    trained_on: str
    headline: str
    licence: str
    details: dict[str, Any]


class ModelRepository:
    """Reads and verifies the models under one directory. Stateless: every call looks at the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Names of the models that have a card, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/card.json"))

    def contents(self) -> dict[str, str]:
        """SHA-256 of every model, as its card has it, and of every JSON document beside them; by name.

        Raises:
            ModelRepositoryError: a card or a document is unreadable.
        """
        found = {name: self.card(name).sha256 for name in self.names()}
        try:
            documents = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.root.glob("*.json")}
        except OSError as error:
            raise ModelRepositoryError("a document of the model repository cannot be read") from error
        return found | documents

    def model_file(self, card: ModelCard) -> Path:
        """Path of the served ONNX file of a card."""
        return self.root / card.name / card.version / "model.onnx"

    def card(self, name: str) -> ModelCard:
        """Read one card.

        Raises:
            ModelNotDeployedError: there is no such model.
            ModelRepositoryError: the card is unreadable or says nothing of training.
        """
        path = self.root / name / "card.json"
        if not path.is_file():
            raise ModelNotDeployedError(f"the model repository holds no model named {name}")
        try:
            details: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            card = ModelCard(
                name=name,
                version=str(details["version"]),
                sha256=str(details["sha256"]),
                trained_on=str(details["trained_on"]),
                headline=str(details["headline"]),
                licence=str(details["licence"]),
                details=details,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelRepositoryError(f"{name}/card.json cannot be read as a model card") from error
        if not card.trained_on or not card.headline:
            raise ModelRepositoryError(f"{name}/card.json does not say that the model was trained and measured")
        return card

    def verified(self, name: str) -> ModelCard:
        """Read one card and check the served file against its hash.

        Raises:
            ModelNotDeployedError: there is no such model.
            ModelRepositoryError: the card or the file is missing, unreadable or altered; says which file.
        """
        card = self.card(name)
        file = self.model_file(card)
        shown = file.relative_to(self.root)
        if not file.is_file():
            raise ModelRepositoryError(f"{shown} is missing")
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != card.sha256:
            raise ModelRepositoryError(f"{shown} is not the file its card describes (its SHA-256 differs)")
        return card

    def verify_all(self, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, ModelCard]:
        """Verified cards of all required models and of those optional ones that are there.

        Raises:
            ModelNotDeployedError: a required model is absent.
            ModelRepositoryError: any model present is not to be trusted.
        """
        present = set(self.names())
        wanted = [*required, *(name for name in optional if name in present)]
        return {name: self.verified(name) for name in wanted}
