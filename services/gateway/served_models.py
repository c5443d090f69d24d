"""Which models are served, in one word: it changes whenever any card does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time

from services.common.errors import BonafideError
from services.common.models import ModelRepository


class ModelFingerprint:
    """The fingerprint of a model repository.

    Args:
        repository: whose cards count.
        seconds: how long a look at the disk is good for.
    """

    def __init__(self, repository: ModelRepository, seconds: float) -> None:
        self._repository = repository
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
            cards = [self._repository.card(name).details for name in self._repository.names()]
        except BonafideError:
            return ""
        return hashlib.sha256(json.dumps(cards, sort_keys=True).encode()).hexdigest() if cards else ""
