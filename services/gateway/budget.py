"""Bytes that may be held at one time, and who holds them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from services.common.errors import ResourceExhaustedError

RETRY_SECONDS = 1.0
"""When room for an upload may be there again, seconds."""


class Budget:
    """Counts bytes that are held against a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def reservation(self) -> Reservation:
        """A share of the budget, empty so far."""
        return Reservation(self)


class Reservation:
    """What one holder has of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def raise_to(self, size: int) -> bool:
        """Hold at least ``size`` bytes; answers False, and changes nothing, when they do not fit."""
        more = max(size - self._held, 0)
        if self._budget.held + more > self._budget.limit:
            return False
        self._budget.held += more
        self._held += more
        return True

    def set_to(self, size: int) -> None:
        """Hold exactly ``size`` bytes, whether they fit or not."""
        self._budget.held += size - self._held
        self._held = size

    def release(self) -> None:
        """Give everything back."""
        self.set_to(0)


class Storage:
    """Room for the bytes of one upload, in memory and on disk; a context manager that gives it back.

    Args:
        memory: budget of all uploads' memory.
        spool: budget of all uploads, wherever their bytes are.
        memory_bytes: the most of one upload that stays in memory.
    """

    def __init__(self, memory: Budget, spool: Budget, memory_bytes: int) -> None:
        self._memory = memory.reservation()
        self._spool = spool.reservation()
        self._memory_bytes = memory_bytes

    def hold(self, size: int) -> None:
        """Make sure that ``size`` bytes in all find room.

        Raises:
            ResourceExhaustedError: they do not (SPOOL_FULL, MEMORY_FULL).
        """
        if not self._spool.raise_to(size):
            raise ResourceExhaustedError(
                "the room for uploads is full", reason="SPOOL_FULL", retry_after_seconds=RETRY_SECONDS
            )
        if not self._memory.raise_to(min(size, self._memory_bytes)):
            raise ResourceExhaustedError(
                "the memory for uploads is full", reason="MEMORY_FULL", retry_after_seconds=RETRY_SECONDS
            )

    def release(self) -> None:
        """Give everything back."""
        self._memory.release()
        self._spool.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
