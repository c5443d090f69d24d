"""The time of one request: its deadline, and what each stage was given and took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from services.common.errors import DeadlineError
from services.gateway.analysis import Progress, Stage, StageTime

Result = TypeVar("Result")

_BEGINS_AT = {
    Stage.RECEIVING: 0.0,
    Stage.QUEUED: 15.0,
    Stage.DECODING: 20.0,
    Stage.ANALYZING: 40.0,
    Stage.FUSING: 95.0,
    Stage.DONE: 100.0,
}


def unmeasured(_stage: Stage, _seconds: float) -> None:
    """Nobody wants to know how long a stage took."""


class Clock:
    """Counts down to the caller's deadline and notes how long each stage took.

    Args:
        timeout: seconds until the deadline, from now.
        ended: told of every stage that ends, and how many seconds it took.
    """

    def __init__(self, timeout: float, ended: Callable[[Stage, float], None] = unmeasured) -> None:
        self._ended = ended
        self._ends = time.monotonic() + timeout
        self._began: tuple[Stage, float] | None = None
        self._timings: list[StageTime] = []

    @property
    def timings(self) -> tuple[StageTime, ...]:
        """The stages that have ended, in order."""
        return tuple(self._timings)

    def enter(self, stage: Stage) -> Progress:
        """End the stage before, begin this one, and say so."""
        self.stop()
        if stage is not Stage.DONE:
            self._began = (stage, time.monotonic())
        return progress(stage)

    def stop(self) -> None:
        """End the stage under way, if there is one."""
        if self._began is None:
            return
        (stage, since), self._began = self._began, None
        seconds = time.monotonic() - since
        self._timings.append(StageTime(stage, seconds * 1000, max(self._ends - since, 0.0) * 1000))
        self._ended(stage, seconds)

    def left(self) -> float:
        """Seconds until the deadline; 0 once it has passed."""
        return max(self._ends - time.monotonic(), 0.0)

    async def within(self, work: Awaitable[Result]) -> Result:
        """Wait for something until the deadline.

        Raises:
            DeadlineError: it passed first; the work is cancelled.
        """
        try:
            async with asyncio.timeout(self.left()):
                return await work
        except TimeoutError as error:
            raise DeadlineError("the time for this analysis was used up") from error


def progress(stage: Stage, share: float = 0.0, until: Stage | None = None) -> Progress:
    """How far an analysis is: at the beginning of a stage, or a share of the way from there to another."""
    begins = _BEGINS_AT[stage]
    return Progress(stage, begins if until is None else begins + share * (_BEGINS_AT[until] - begins))
