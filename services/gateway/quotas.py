"""How much a caller may ask: calls a minute, as a bucket that refills evenly, and calls at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.common.errors import ResourceExhaustedError

_MINUTE = 60.0
_MOST_CALLERS = 4096
_CONCURRENT_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of one caller; 0 means none."""

    requests_per_minute: int = 0
    concurrent: int = 0


@dataclass(slots=True)
class _Usage:
    allowance: float
    at: float
    calls: int = 0


class QuotaBook:
    """Counts each caller's calls; belongs to one event loop. ``clock`` answers seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._usages: dict[str, _Usage] = {}

    def enter(self, name: str, quota: Quota) -> Callable[[], None]:
        """Count a call that begins; the answer is to be called once when it has ended.

        A caller who was idle for a minute may make a minute's calls at once.

        Raises:
            ResourceExhaustedError: over the quota (QUOTA_CONCURRENT, QUOTA_RATE); says when to try again.
        """
        usage = self._refilled(name, quota)
        if quota.concurrent and usage.calls >= quota.concurrent:
            raise ResourceExhaustedError(
                f"the caller's quota is {quota.concurrent} calls at the same time",
                reason="QUOTA_CONCURRENT",
                retry_after_seconds=_CONCURRENT_PAUSE_SECONDS,
            )
        if quota.requests_per_minute:
            if usage.allowance < 1:
                raise ResourceExhaustedError(
                    f"the caller's quota is {quota.requests_per_minute} calls a minute",
                    reason="QUOTA_RATE",
                    retry_after_seconds=(1 - usage.allowance) * _MINUTE / quota.requests_per_minute,
                )
            usage.allowance -= 1
        usage.calls += 1

        def leave() -> None:
            usage.calls -= 1

        return leave

    def _refilled(self, name: str, quota: Quota) -> _Usage:
        now = self._clock()
        full = float(quota.requests_per_minute)
        usage = self._usages.get(name)
        if usage is None:
            self._forget_idle(now)
            usage = self._usages[name] = _Usage(allowance=full, at=now)
        usage.allowance = min(full, usage.allowance + (now - usage.at) * full / _MINUTE)
        usage.at = now
        return usage

    def _forget_idle(self, now: float) -> None:
        """Keep the book small: who made no call for a minute has a full allowance again anyway."""
        if len(self._usages) >= _MOST_CALLERS:
            self._usages = {name: each for name, each in self._usages.items() if each.calls or now - each.at < _MINUTE}
