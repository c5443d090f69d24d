"""Taking turns in proportion to weights: stride scheduling.

Source: Waldspurger and Weihl, "Stride Scheduling: Deterministic Proportional-Share Resource Management"
(1995). Every key has a pass that advances by 1 / weight whenever it is picked; the lowest pass is next. A
key that was away joins at the current pass, so that nobody saves up turns and nobody starves.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class TurnTaking(Generic[Key]):
    """Picks among those who wait; over time each gets turns in proportion to its weight."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ahead: dict[Key, float] = {}

    def pick(self, weights: Mapping[Key, float]) -> Key:
        """Whose turn it is.

        Args:
            weights: those who wait, with positive weights; not empty. Of equals the first is picked.
        """
        chosen = min(weights, key=lambda key: self._ahead.get(key, self._now))
        self._now = self._ahead.get(chosen, self._now)
        self._ahead[chosen] = self._now + 1.0 / weights[chosen]
        # Who is not ahead of the rest any more needs no memory: it would join at the current pass.
        self._ahead = {key: ahead for key, ahead in self._ahead.items() if ahead > self._now}
        return chosen
