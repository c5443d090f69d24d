"""Starts again what has ended, soon at first and ever later when it keeps ending."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deploy.local.processes import ManagedProcess

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A process that ran for so long has recovered: its next pause is the first again."""


@dataclass(frozen=True, slots=True)
class _Fall:
    """When a process is to be started again, and the pause after which that is."""

    due: float
    pause: float


class Supervisor:
    """Restarts ended processes with a pause that doubles from one end to the next.

    Args:
        processes: by name.
        before: called with the name just before a process is started again, to tidy up after the dead one.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        processes: Mapping[str, ManagedProcess],
        before: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = processes
        self._before = before
        self._clock = clock
        self._falls: dict[str, _Fall] = {}
        self._started: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    def tend(self) -> list[str]:
        """Look at every process once; answers a line for each that has ended and each that was started again.

        Call it again and again from a thread that outlives the processes: they are on its leash.
        """
        said: list[str] = []
        for name, process in self._processes.items():
            code = process.exit_code
            if code is None:
                continue
            fall = self._falls.get(name)
            if fall is None:
                fall = self._falls[name] = self._noticed(name)
                said.append(f"{name} ended with code {code}: starting it again in {fall.pause:g} s")
            if self._clock() >= fall.due:
                del self._falls[name]
                self._before(name)
                process.restart()
                self._started[name] = self._clock()
                said.append(f"{name} started again")
        return said

    def _noticed(self, name: str) -> _Fall:
        now = self._clock()
        steady = now - self._started.get(name, now - STEADY_SECONDS) >= STEADY_SECONDS
        pause = FIRST_PAUSE_SECONDS if steady else min(2 * self._pauses[name], LONGEST_PAUSE_SECONDS)
        self._pauses[name] = pause
        return _Fall(now + pause, pause)
