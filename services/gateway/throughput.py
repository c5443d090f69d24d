"""How fast analyses go, and so how long a queue takes."""

from __future__ import annotations

NEWEST_SHARE = 0.1
"""Weight of the newest analysis in the moving average."""


class Throughput:
    """The length of an analysis, as a moving average over those that ended."""

    def __init__(self) -> None:
        self.typical_seconds = 0.0

    def note(self, seconds: float) -> None:
        """Learn from an analysis that took this long."""
        if not self.typical_seconds:
            self.typical_seconds = seconds
        self.typical_seconds += NEWEST_SHARE * (seconds - self.typical_seconds)

    def wait_seconds(self, turns: float, running: int) -> float:
        """Expected time until so many more analyses have begun, with some running; 0 while nothing is known."""
        return turns * self.typical_seconds / max(running, 1)
