"""One computation for all who ask for the same at once, whoever of them leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from services.common.errors import InvalidInputError
from services.gateway.flights import Flights


class Work:
    """A computation of two events that waits in between; counts how it ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.go_on = asyncio.Event()
        self.began = self.finished = self.stopped = 0

    async def run(self) -> AsyncGenerator[str, None]:
        self.began += 1
        try:
            yield "begun"
            await self.go_on.wait()
            if self.error is not None:
                raise self.error
            yield "done"
            self.finished += 1
        except asyncio.CancelledError:
            self.stopped += 1
            raise


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def watch(flights: Flights[str, str], work: Work) -> list[str]:
    flight = flights.start("key", work.run())
    return [event async for event in flight.watch()]


async def test_those_who_come_later_share_the_work_and_its_result() -> None:
    flights: Flights[str, str] = Flights()
    work = Work()
    leader = asyncio.create_task(watch(flights, work))
    await settle()
    flight = flights.find("key")
    assert flight is not None
    assert flights.find("other") is None
    follower = asyncio.create_task(flight.last())
    await settle()
    work.go_on.set()
    assert await leader == ["begun", "done"]
    assert await follower == "done"
    assert (work.began, work.finished) == (1, 1)
    assert flights.find("key") is None


async def test_work_goes_on_when_the_leader_leaves_and_stops_with_the_last() -> None:
    flights: Flights[str, str] = Flights()
    work = Work()
    leader = asyncio.create_task(watch(flights, work))
    await settle()
    flight = flights.find("key")
    assert flight is not None
    followers = [asyncio.create_task(flight.last()) for _ in range(2)]
    await settle()
    for task in (leader, followers[0]):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert work.stopped == 0
        assert flights.find("key") is flight
    followers[1].cancel()
    await asyncio.gather(followers[1], return_exceptions=True)
    assert (work.stopped, work.finished) == (1, 0)
    assert flights.find("key") is None


async def test_the_follower_gets_its_answer_after_the_leader_hung_up() -> None:
    flights: Flights[str, str] = Flights()
    work = Work()
    leader = asyncio.create_task(watch(flights, work))
    await settle()
    flight = flights.find("key")
    assert flight is not None
    follower = asyncio.create_task(flight.last())
    await settle()
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    work.go_on.set()
    assert await follower == "done"


async def test_an_error_reaches_everyone() -> None:
    flights: Flights[str, str] = Flights()
    work = Work(InvalidInputError("odd"))
    leader = asyncio.create_task(watch(flights, work))
    await settle()
    flight = flights.find("key")
    assert flight is not None
    follower = asyncio.create_task(flight.last())
    await settle()
    work.go_on.set()
    for task in (leader, follower):
        with pytest.raises(InvalidInputError):
            await task


async def test_what_was_held_is_let_go_even_if_the_work_never_began() -> None:
    flights: Flights[str, str] = Flights()
    released: list[bool] = []
    flight = flights.start("key", Work().run())
    flight.when_over(lambda: released.append(True))
    watching = asyncio.create_task(anext(flight.watch()))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    last = asyncio.create_task(flight.last())
    await asyncio.sleep(0)
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    await settle()
    assert released == [True]
