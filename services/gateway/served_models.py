"""Which models are served, and all of that in one word, which changes whenever any of them does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time

from services.common.errors import BonafideError
from services.common.models import ModelCard, ModelRepository
from services.common.rollout_plan import RolloutFile

_log = logging.getLogger(__name__)


class ServedModels:
    """The stable versions: those of the root cards, but where the rollout file names others.

    Args:
        repository: holds all versions.
        file: the rollout file; while it is invalid the last plan counts.
    """

    def __init__(self, repository: ModelRepository, file: RolloutFile) -> None:
        self._repository = repository
        self._file = file
        self._stable = repository

    def repository(self) -> ModelRepository:
        """The repository at the stable versions; looks at the disk."""
        try:
            self._stable = self._repository.at(self._file.read().stable)
        except BonafideError as error:
            _log.warning("%s", error.message)
        return self._stable

    def cards(self) -> list[ModelCard]:
        """Cards of the networks, by name.

        Raises:
            BonafideError: one cannot be read.
        """
        repository = self.repository()
        return [repository.card(name) for name in repository.names()]


class ModelFingerprint:
    """The fingerprint of the served models.

    Args:
        models: whose cards and versions count.
        seconds: how long a look at the disk is good for.
    """

    def __init__(self, models: ServedModels, seconds: float) -> None:
        self._models = models
        self._seconds = seconds
        self._read_at: float | None = None
        self._value = ""

    async def current(self) -> str:
        """The fingerprint now, lower-case hex; empty when the cards cannot be read."""
        if self._read_at is None or time.monotonic() - self._read_at > self._seconds:
            self._value = await asyncio.to_thread(self._read)
            self._read_at = time.monotonic()
        return self._value

    def _read(self) -> str:
        try:
            cards = [card.details for card in self._models.cards()]
        except BonafideError:
            return ""
        facts = [cards, self._models.repository().versions]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest() if cards else ""
