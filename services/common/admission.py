"""A bound on the calls that a service works on at one time, in number and in bytes.

A service that takes more than it can do makes every call late; one that refuses at once lets its caller wait,
go elsewhere, or do without. The refusal comes before the message is read and says when to come back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import grpc

from services.common.errors import ResourceExhaustedError

MESSAGE_BYTES_KEY = "bonafide-message-bytes"
"""Metadata by which a caller declares the size of its message, bytes."""
_SOONEST_RETRY_SECONDS = 0.1
_NEWEST_SHARE = 0.2

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class CallLimitState:
    """Calls under way, the bytes they declared, and how many were refused so far."""

    calls: int
    message_bytes: int
    refused: int


class CallLimit:
    """Counts calls in and out; for ``Service.admit``. All of it belongs to one event loop.

    Args:
        calls: most calls at one time.
        message_bytes: most bytes that their messages may declare together. A single call always fits.
    """

    def __init__(self, calls: int, message_bytes: int) -> None:
        self._most = calls
        self._most_bytes = message_bytes
        self._calls = 0
        self._bytes = 0
        self._refused = 0
        self._typical_seconds = 0.0

    @property
    def state(self) -> CallLimitState:
        """What is under way, for people and metrics."""
        return CallLimitState(self._calls, self._bytes, self._refused)

    async def admit(self, context: Context) -> None:
        """Count a call in, until it ends however it ends.

        Raises:
            ResourceExhaustedError: there are too many (CALLS_FULL), or they are too large together (MEMORY_FULL).
        """
        size = _declared_bytes(context)
        if self._calls >= self._most:
            self._refused += 1
            raise ResourceExhaustedError(
                "as many calls are under way as may", reason="CALLS_FULL", retry_after_seconds=self._soon()
            )
        if self._calls and self._bytes + size > self._most_bytes:
            self._refused += 1
            raise ResourceExhaustedError(
                "the memory for messages is full", reason="MEMORY_FULL", retry_after_seconds=self._soon()
            )
        self._calls += 1
        self._bytes += size
        began = time.monotonic()

        def left(_: object) -> None:
            self._leave(size, time.monotonic() - began)

        context.add_done_callback(left)  # type: ignore[arg-type]  # grpc-stubs calls a protocol what is a function

    def _leave(self, size: int, seconds: float) -> None:
        self._calls -= 1
        self._bytes -= size
        self._typical_seconds += _NEWEST_SHARE * (seconds - self._typical_seconds)

    def _soon(self) -> float:
        """When a place will probably be free, seconds."""
        return max(self._typical_seconds / self._most, _SOONEST_RETRY_SECONDS)


def _declared_bytes(context: Context) -> int:
    for key, value in context.invocation_metadata() or ():
        if key == MESSAGE_BYTES_KEY:
            text = str(value)
            return int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(1 << 62)) else 0
    return 0
