"""The model repository: cards, hashes, and the refusal to serve what cannot be trusted.

Layout is Triton's: ``<root>/<name>/config.pbtxt`` and ``<root>/<name>/<version>/model.onnx``; beside them
``card.json`` says what the model is, how it was trained and which bytes it must have. Another version brings its
own card, and the documents that were fitted on it, in its directory: ``<root>/<name>/<version>/card.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
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


HEADS = "fusion_heads"
"""Directory of further sets of fusion heads, one a version; they are no network, so no card stands at its root."""


class ModelRepository:
    """Reads and verifies the models under one directory. Stateless: every call looks at the disk.

    Args:
        root: the directory.
        versions: name → version of the models that are not at the version of their root card; of two that bring
            the same document the later one counts.
    """

    def __init__(self, root: Path, versions: Mapping[str, str] | None = None) -> None:
        self.root = root
        self._versions = dict(versions or {})

    @property
    def versions(self) -> dict[str, str]:
        """Name → version of the models that are not left to their root cards."""
        return dict(self._versions)

    def at(self, versions: Mapping[str, str]) -> ModelRepository:
        """The same repository with other versions of some models."""
        kept = {name: version for name, version in self._versions.items() if name not in versions}
        return ModelRepository(self.root, kept | dict(versions))

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
            names = sorted(path.name for path in self.root.glob("*.json"))
            documents = {name: hashlib.sha256(self.document(name).read_bytes()).hexdigest() for name in names}
        except OSError as error:
            raise ModelRepositoryError("a document of the model repository cannot be read") from error
        return found | documents

    def document(self, name: str) -> Path:
        """Path of a JSON document beside the models, in the version that belongs to theirs."""
        own = (self.root / model / version / name for model, version in reversed(self._versions.items()))
        return next((path for path in own if path.is_file()), self.root / name)

    def model_file(self, card: ModelCard) -> Path:
        """Path of the served file of a card: a network's ONNX, or the manifest of a set of fusion heads."""
        return self.root / card.name / card.version / ("manifest.json" if card.name == HEADS else "model.onnx")

    def staged(self, name: str) -> list[str]:
        """Versions of a model that have a card of their own, sorted."""
        return sorted(path.parent.name for path in self.root.glob(f"{name}/*/card.json"))

    def card(self, name: str) -> ModelCard:
        """Read one card.

        Raises:
            ModelNotDeployedError: there is no such model, or not in this version.
            ModelRepositoryError: the card is unreadable, says nothing of training, or is that of another version.
        """
        version = self._versions.get(name)
        if version is None:
            return self._read_card(name, self.root / name / "card.json")
        path = self.root / name / version / "card.json"
        card = self._read_card(name, path if path.is_file() else self.root / name / "card.json")
        if card.version == version:
            return card
        if path.is_file():
            raise ModelRepositoryError(f"{name}/{version}/card.json is the card of version {card.version}")
        raise ModelNotDeployedError(f"the model repository holds no version {version} of {name}")

    def _read_card(self, name: str, path: Path) -> ModelCard:
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
            raise ModelRepositoryError(f"{path.relative_to(self.root)} cannot be read as a model card") from error
        if not card.trained_on or not card.headline:
            raise ModelRepositoryError(
                f"{path.relative_to(self.root)} does not say that the model was trained and measured"
            )
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


def fits(fitted_on: Mapping[str, str], served: Mapping[str, str]) -> str:
    """Whether what was fitted on the scores of some models may read those of others.

    A model that is not served is no fault: its branch does not answer. A document that is served counts even if
    nothing was known of it.

    Args:
        fitted_on: name → SHA-256 of the models and documents it was fitted on.
        served: the same of those served, see ``ModelRepository.contents``.

    Returns:
        The name of the first that differs; empty when all are the same.
    """
    documents = {name for name in served if name.endswith(".json")}
    named = sorted((documents | fitted_on.keys()) & served.keys())
    return next((name for name in named if fitted_on.get(name) != served[name]), "")
