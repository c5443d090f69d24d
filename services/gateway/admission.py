"""The gateway's door and its turns: who may upload, and who is analysed when.

The door is decided before the first byte of an upload is read. Uploads have places of their own, so that
bytes which trickle in never hold up an analysis; whoever has uploaded waits for a turn. Bytes count against
budgets: what uploads and analyses hold in memory, and what uploads put on disk.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from services.common.errors import DeadlineError, ResourceExhaustedError
from services.gateway.analysis import Priority
from services.gateway.budget import Budget, Reservation, Storage
from services.gateway.throughput import Throughput
from services.gateway.waiting_room import LaneRule, Waiter, WaitingRoom

ACTIVE_SECONDS = 5.0
"""A caller counts as active, and limited places are kept for it, this long after it last asked."""
UPLOAD_PART = 4
SOONEST_RETRY_SECONDS, LATEST_RETRY_SECONDS = 0.2, 30.0


@dataclass(frozen=True, slots=True)
class AdmissionRules:
    """How much may be under way.

    ``analysis_bytes`` is what the largest analysis may hold in memory, ``upload_memory_bytes`` what one
    upload does. ``memory_bytes`` bounds them all together: a quarter is for uploads, the rest for analyses,
    of which one begins only when the largest would fit. ``spool_bytes`` bounds what uploads hold in memory
    and on disk.
    """

    analyses: int
    uploads: int
    lanes: Mapping[Priority, LaneRule]
    analysis_bytes: int
    upload_memory_bytes: int
    memory_bytes: int
    spool_bytes: int


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks: the caller's name, the lane, and the seconds until its deadline."""

    caller: str
    priority: Priority
    seconds_left: float


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """What is under way now; ``oldest_seconds`` is the age of whoever has waited longest, by lane."""

    receiving: int
    analyzing: int
    waiting: Mapping[Priority, int]
    oldest_seconds: Mapping[Priority, float]
    memory_bytes: int
    spool_bytes: int
    refused: Mapping[str, int]


class Admission:
    """Lets uploads in and gives turns. All of it belongs to one event loop.

    Args:
        rules: the limits.
        now: monotonic seconds.
    """

    def __init__(self, rules: AdmissionRules, now: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._now = now
        self._room = WaitingRoom(rules.lanes)
        self._throughput = Throughput()
        self._receiving: Counter[str] = Counter()
        self._seen: dict[str, float] = {}
        self._upload_memory = Budget(rules.memory_bytes // UPLOAD_PART)
        self._analysis_memory = Budget(rules.memory_bytes - self._upload_memory.limit)
        self._spool = Budget(rules.spool_bytes)
        self._analyzing = 0
        self._refused: Counter[str] = Counter()

    @property
    def state(self) -> AdmissionState:
        """What is under way, for people and metrics."""
        now = self._now()
        since = {priority: self._room.oldest_since(priority) for priority in self._rules.lanes}
        return AdmissionState(
            receiving=self._receiving.total(),
            analyzing=self._analyzing,
            waiting={priority: self._room.waiting(priority) for priority in self._rules.lanes},
            oldest_seconds={name: now - begun if begun is not None else 0.0 for name, begun in since.items()},
            memory_bytes=self._upload_memory.held + self._analysis_memory.held,
            spool_bytes=self._spool.held,
            refused=dict(self._refused),
        )

    @contextmanager
    def door(self, applicant: Applicant) -> Iterator[None]:
        """Hold a place to upload within the block.

        Raises:
            ResourceExhaustedError: there is none (UPLOADS_FULL, CALLER_SHARE_FULL), the lane's queue is full
                (QUEUE_FULL), or it is too long for the caller's deadline (DEADLINE_UNMEETABLE).
        """
        with self._counting():
            self._check_uploads(applicant.caller)
            self._check_queue(applicant)
        with self._receives(applicant.caller):
            yield

    @contextmanager
    def sending(self, caller: str) -> Iterator[None]:
        """Hold a place to upload within the block, of a file that is not to be analysed yet.

        Raises:
            ResourceExhaustedError: there is none (UPLOADS_FULL, CALLER_SHARE_FULL).
        """
        with self._counting():
            self._check_uploads(caller)
        with self._receives(caller):
            yield

    def storage(self) -> Storage:
        """Room for one upload's bytes; a context manager that gives it back."""
        return Storage(self._upload_memory, self._spool, self._rules.upload_memory_bytes)

    @asynccontextmanager
    async def turn(self, applicant: Applicant) -> AsyncIterator[Callable[[int], None]]:
        """Wait for a turn and hold it within the block.

        Yields:
            Takes the bytes that the analysis really holds, once that is known, and lets others use the rest.

        Raises:
            ResourceExhaustedError: the wait has become too long to be welcome (reason OVERLOADED).
            DeadlineError: the caller's time was used up.
        """
        called = asyncio.get_running_loop().create_future()
        memory = self._analysis_memory.reservation()
        waiter = Waiter(applicant.caller, applicant.priority, self._now(), called, memory)
        self._room.join(waiter)
        self._call()
        try:
            async with asyncio.timeout(applicant.seconds_left):
                await waiter.called
        except BaseException as error:
            self._give_up(waiter, error)
            if isinstance(error, TimeoutError):
                raise DeadlineError("the time for this analysis was used up in the queue") from error
            raise
        began = self._now()
        try:
            yield lambda size: self._resize(memory, size)
            self._throughput.note(self._now() - began)  # what fails or is given up says nothing of the pace
        finally:
            self._end_turn(memory)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except ResourceExhaustedError as error:
            self._refused[error.reason] += 1
            raise

    @contextmanager
    def _receives(self, caller: str) -> Iterator[None]:
        self._receiving[caller] += 1
        try:
            yield
        finally:
            self._receiving[caller] -= 1
            self._receiving += Counter()  # forgets callers without any

    def _give_up(self, waiter: Waiter, error: BaseException) -> None:
        self._room.leave(waiter)
        if isinstance(error, ResourceExhaustedError):
            self._refused[error.reason] += 1
        elif waiter.called.done() and not waiter.called.cancelled() and waiter.called.exception() is None:
            self._end_turn(waiter.memory)  # called at the very moment when it stopped waiting

    def _end_turn(self, memory: Reservation) -> None:
        self._analyzing -= 1
        self._resize(memory, 0)

    def _resize(self, memory: Reservation, size: int) -> None:
        memory.set_to(size)
        self._call()

    def _call(self) -> None:
        """Call as many as may run."""
        while self._may_run() and (waiter := self._room.next(self._now(), self._throughput.typical_seconds)):
            if not waiter.called.done():
                waiter.called.set_result(None)
                waiter.memory.set_to(self._rules.analysis_bytes)
                self._analyzing += 1
        if self._may_run():
            self._room.idle()

    def _may_run(self) -> bool:
        """Whether another analysis fits; one always does, or a small budget would stop everything."""
        fits = self._analysis_memory.held + self._rules.analysis_bytes <= self._analysis_memory.limit
        return self._analyzing < self._rules.analyses and (fits or not self._analyzing)

    def _check_uploads(self, caller: str) -> None:
        if self._receiving.total() >= self._rules.uploads:
            raise self._refusal("as many uploads are coming in as may", reason="UPLOADS_FULL")
        if self._receiving[caller] >= self._share(self._rules.uploads, caller):
            raise self._refusal("this caller's share of uploads is used", reason="CALLER_SHARE_FULL")

    def _check_queue(self, applicant: Applicant) -> None:
        priority, caller = applicant.priority, applicant.caller
        free = self._may_run() and not self._room
        turns = 0.0 if free else self._room.turns_before(priority) + 1
        wait = self._throughput.wait_seconds(turns, self._analyzing)
        places = self._places(priority)
        if self._room.waiting(priority) >= places:
            raise self._refusal("as many requests are waiting as may", reason="QUEUE_FULL", wait=wait)
        if self._room.waiting(priority, caller) >= self._share(places, caller):
            raise self._refusal("this caller's share of the queue is used", reason="CALLER_SHARE_FULL", wait=wait)
        if not free and wait + self._throughput.typical_seconds > applicant.seconds_left:
            raise self._refusal(
                "the queue is too long for the deadline of this request", reason="DEADLINE_UNMEETABLE", wait=wait
            )

    def _places(self, priority: Priority) -> int:
        """Places of a lane: in overload no more than will be called within a welcome wait."""
        if self._room.overloaded(priority, self._now(), self._throughput.typical_seconds):
            return max(self._rules.analyses // 2, 1)
        return self._rules.lanes[priority].places

    def _share(self, places: int, caller: str) -> int:
        """How many of some places a caller may hold: as many as anyone who asked lately, or is here now."""
        now = self._now()
        self._seen[caller] = now
        self._seen = {name: seen for name, seen in self._seen.items() if now - seen <= ACTIVE_SECONDS}
        return max(places // len(self._seen.keys() | self._receiving.keys()), 1)

    def _refusal(self, message: str, *, reason: str, wait: float = 0.0) -> ResourceExhaustedError:
        wait = min(max(wait, SOONEST_RETRY_SECONDS), LATEST_RETRY_SECONDS)
        # Callers who were refused together must not come back together.
        wait *= random.uniform(1.0, 1.5)  # noqa: S311 - spreads retries, guards nothing
        return ResourceExhaustedError(message, reason=reason, retry_after_seconds=wait)
