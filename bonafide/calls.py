"""What one call may cost: its deadline, its tries and the pauses between them. Shared by both clients."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bonafide.errors import ClientError, DeadlineExceededError
from bonafide.tracing import Headers, traced


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a call is tried.

    Every call is safe to repeat: an analysis carries a ``request_id`` that the client keeps from try to
    try. Pauses double from ``first_pause_seconds`` up to ``longest_pause_seconds`` and are drawn at random
    between half and the whole of that, so that many clients do not come back at once; a server that says
    when to come back is waited for.
    """

    attempts: int = 5
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 5.0

    def pause_seconds(self, tried: int, draw: float) -> float:
        """The pause after so many tries, for a ``draw`` in [0, 1)."""
        whole = min(self.first_pause_seconds * 2.0 ** (tried - 1), self.longest_pause_seconds)
        return whole * (0.5 + draw / 2)


class Attempts:
    """The tries of one call, all within one deadline and one span of the caller's trace.

    Attributes:
        headers: what each try carries for that trace.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        timeout: float,
        draw: Callable[[], float] = random.random,
        headers: Headers = (),
    ) -> None:
        self.headers = headers
        self._policy = policy
        self._ends = time.monotonic() + timeout
        self._draw = draw
        self._tried = 0

    def begin(self) -> float:
        """Count another try; answers the seconds that it may take.

        Raises:
            DeadlineExceededError: no time is left.
        """
        self._tried += 1
        left = self._ends - time.monotonic()
        if left <= 0:
            text = "the time allowed was used up"
            raise DeadlineExceededError(text, code="DEADLINE_EXCEEDED", reason="DEADLINE_EXCEEDED")
        return left

    def progressed(self) -> None:
        """Count tries anew: something was won by the last one."""
        self._tried = 0

    def pause_after(self, error: ClientError) -> float:
        """Seconds to wait before the next try.

        Raises:
            ClientError: the error itself, when it must not or cannot be tried again within the deadline.
        """
        pause = self._policy.pause_seconds(max(self._tried, 1), self._draw())
        if error.retry_after_seconds is not None:
            # Never earlier than asked, and not all at the same moment.
            pause = error.retry_after_seconds * (1 + self._draw() / 10) + pause / 10
        if not error.retryable or self._tried >= self._policy.attempts or time.monotonic() + pause >= self._ends:
            raise error
        return pause


@contextmanager
def attempted(name: str, policy: RetryPolicy, timeout: float) -> Iterator[Attempts]:
    """The tries of a call of that name, which has the block to end in."""
    with traced(f"bonafide.{name}") as headers:
        yield Attempts(policy, timeout, headers=headers)
