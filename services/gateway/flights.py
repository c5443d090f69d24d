"""Single flight: whoever asks for what is being computed already shares that computation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable
from contextlib import aclosing, asynccontextmanager
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Event = TypeVar("Event")


class Flight(Generic[Event]):
    """One computation in a task of its own, and those aboard.

    It goes on when whoever began it leaves, and ends with the last of those aboard.
    """

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events: list[Event] = []
        self._news = asyncio.Event()
        self._aboard = 0
        self._task = asyncio.create_task(self._fly(events))
        self._task.add_done_callback(lambda _: self._tell())

    @property
    def open(self) -> bool:
        """Whether one may still come aboard."""
        return not self._task.done() and not self._task.cancelling()

    async def watch(self) -> AsyncGenerator[Event, None]:
        """Every event from the first on; raises what the computation raises."""
        async with self._on_board():
            seen = 0
            while True:
                while seen < len(self._events):
                    yield self._events[seen]
                    seen += 1
                if self._task.done():
                    self._task.result()
                    return
                await self._news.wait()

    async def last(self) -> Event:
        """The last event; raises what the computation raises."""
        async with self._on_board():
            await asyncio.shield(self._task)
            return self._events[-1]

    def when_over(self, call: Callable[[], None]) -> None:
        """Have something done when the computation has ended, even if it never got to begin."""
        self._task.add_done_callback(lambda _: call())

    async def _fly(self, events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            async for event in events:
                self._events.append(event)
                self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def _on_board(self) -> AsyncIterator[None]:
        """Count someone aboard; the last to leave before the end stops the work, and waits until it has stopped."""
        self._aboard += 1
        try:
            yield
        finally:
            self._aboard -= 1
            if not self._aboard and not self._task.done():
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)


class Flights(Generic[Key, Event]):
    """The computations under way, by what they compute."""

    def __init__(self) -> None:
        self._flying: dict[Key, Flight[Event]] = {}

    def find(self, key: Key) -> Flight[Event] | None:
        """The computation of something, if it is under way."""
        flight = self._flying.get(key)
        return flight if flight is not None and flight.open else None

    def start(self, key: Key, events: AsyncGenerator[Event, None]) -> Flight[Event]:
        """Begin a computation, which those who ask for the same thing from now on will find."""
        self._flying = {other: flight for other, flight in self._flying.items() if flight.open}
        self._flying[key] = Flight(events)
        return self._flying[key]
