"""A circuit breaker: a service that keeps failing is left alone for a while, then tried with one call.

CLOSED lets every call through and watches the share of failures among the latest. OPEN refuses at once.
After a pause it is HALF_OPEN: one call at a time goes through as a probe; its success closes the circuit,
its failure opens it again for twice as long. Source: Nygard, "Release It!" (2007), chapter 5.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from services.common.errors import UnavailableError

Result = TypeVar("Result")
_LONGEST_PAUSE_FACTOR = 8


class State(StrEnum):
    """What a circuit does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitOpenError(UnavailableError):
    """The service was not asked, because it has failed so often of late."""

    reason = "CIRCUIT_OPEN"


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a circuit opens, and for how long.

    It opens once at least ``least_calls`` ended within the last ``window_seconds`` and a ``failure_share``
    of them, (0, 1], failed. It stays open ``pause_seconds``, and twice as long after each failed probe, up
    to eight times.
    """

    window_seconds: float = 30.0
    least_calls: int = 5
    failure_share: float = 0.5
    pause_seconds: float = 5.0


class CircuitBreaker:
    """The circuit of one service.

    Args:
        title: whom it protects, for people.
        rule: when it opens.
        now: monotonic seconds.
    """

    def __init__(
        self,
        title: str,
        rule: BreakerRule,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._rule = rule
        self._now = now
        self._ended: deque[tuple[float, bool]] = deque()
        self._opened_at: float | None = None
        self._pause = rule.pause_seconds
        self._probing = False

    @property
    def state(self) -> State:
        """What it would do with a call now."""
        if self._opened_at is None:
            return State.CLOSED
        return State.OPEN if self._now() < self._opened_at + self._pause else State.HALF_OPEN

    async def call(self, work: Callable[[], Awaitable[Result]], *, unwell: Callable[[BaseException], bool]) -> Result:
        """Do some work through the circuit.

        Args:
            work: begins the call.
            unwell: whether an error says that the service is unwell; others neither open nor close it.

        Raises:
            CircuitOpenError: it is open, or half open with a probe under way; ``work`` was not begun.
        """
        probe = self._enter()
        try:
            result = await work()
        except BaseException as error:
            self._leave(probe=probe, failed=True if unwell(error) else None)
            raise
        self._leave(probe=probe, failed=False)
        return result

    def _enter(self) -> bool:
        """Let a call in; answers whether it is a probe."""
        state = self.state
        if state is State.CLOSED:
            return False
        if state is State.OPEN or self._probing:
            opened_at = self._opened_at if self._opened_at is not None else self._now()
            wait = max(opened_at + self._pause - self._now(), 0.0)
            raise CircuitOpenError(f"{self._title} failed repeatedly", retry_after_seconds=wait)
        self._probing = True
        return True

    def _leave(self, *, probe: bool, failed: bool | None) -> None:
        """Note how a call ended; None when that says nothing of the service's health."""
        if probe:
            self._probing = False
            if failed is not None:
                self._settle(failed=failed)
        elif failed is not None and self._opened_at is None:
            self._count(failed=failed)

    def _settle(self, *, failed: bool) -> None:
        """A probe has answered the question."""
        if failed:
            self._opened_at = self._now()
            self._pause = min(self._pause * 2, self._rule.pause_seconds * _LONGEST_PAUSE_FACTOR)
        else:
            self._opened_at = None
            self._pause = self._rule.pause_seconds
            self._ended.clear()

    def _count(self, *, failed: bool) -> None:
        now = self._now()
        self._ended.append((now, failed))
        while self._ended[0][0] <= now - self._rule.window_seconds:
            self._ended.popleft()
        failures = sum(failed for _, failed in self._ended)
        if len(self._ended) >= self._rule.least_calls and failures >= self._rule.failure_share * len(self._ended):
            self._opened_at = now
