"""The order in which requests get their turn, by lane, by caller, and by how long they have waited.

A lane gets turns by its weight, so that interactive requests go first and backfill never starves; within a
lane every caller gets as many turns as any other. A short queue absorbs bursts, a standing one only adds
delay: when turns have been wanting in a *brisk* lane for as long as a few analyses take it is overloaded. Then
newcomers go first, for their callers still wait, and those who have waited too long to be welcome are
refused. Sources: Nichols and Jacobson, "Controlling Queue Delay" (2012); Maurer, "Fail at Scale" (2015), on
adaptive LIFO.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.common.errors import ResourceExhaustedError
from services.gateway.analysis import Priority
from services.gateway.budget import Reservation
from services.gateway.fairness import TurnTaking

STANDING_TURNS = 3.0
"""A queue stands when there was no turn to spare for this many times the length of an analysis."""
WELCOME_TURNS = 0.5
"""In an overloaded lane nobody waits longer than this many times the length of an analysis."""


@dataclass(frozen=True, slots=True)
class LaneRule:
    """One lane: its share of turns, its places, and whether it is brisk: refuses rather than lets wait."""

    weight: float
    places: int
    brisk: bool = False


@dataclass(eq=False, frozen=True, slots=True)
class Waiter:
    """Someone who waits since then.

    ``called`` is done when the turn comes, or fails when it will not; ``memory`` is what the turn then holds.
    """

    caller: str
    priority: Priority
    since: float
    called: asyncio.Future[None]
    memory: Reservation


@dataclass(slots=True)
class _Lane:
    rule: LaneRule
    waiters: list[Waiter] = field(default_factory=list)
    turns: TurnTaking[str] = field(default_factory=TurnTaking)
    standing_since: float | None = None


class WaitingRoom:
    """Those who have uploaded and wait. Times are monotonic seconds."""

    def __init__(self, rules: Mapping[Priority, LaneRule]) -> None:
        self._lanes = {priority: _Lane(rule) for priority, rule in rules.items()}
        self._turns: TurnTaking[Priority] = TurnTaking()

    def __len__(self) -> int:
        return sum(len(lane.waiters) for lane in self._lanes.values())

    def waiting(self, priority: Priority, caller: str | None = None) -> int:
        """How many wait in a lane, or how many of one caller's."""
        waiters = self._lanes[priority].waiters
        return len(waiters) if caller is None else sum(waiter.caller == caller for waiter in waiters)

    def oldest_since(self, priority: Priority) -> float | None:
        """Since when the oldest in a lane has waited; None when nobody does."""
        return min((waiter.since for waiter in self._lanes[priority].waiters), default=None)

    def overloaded(self, priority: Priority, now: float, typical_seconds: float) -> bool:
        """Whether a brisk lane's queue stands, given the length of an analysis."""
        lane = self._lanes[priority]
        if not lane.rule.brisk or lane.standing_since is None:
            return False
        return now - lane.standing_since > STANDING_TURNS * typical_seconds

    def turns_before(self, priority: Priority) -> float:
        """About how many turns pass before one who joined a lane now, other lanes' among them."""
        lane = self._lanes[priority]
        others = [other.rule.weight for name, other in self._lanes.items() if other.waiters and name is not priority]
        return len(lane.waiters) * (1 + sum(others) / lane.rule.weight)

    def join(self, waiter: Waiter) -> None:
        """Wait in line."""
        lane = self._lanes[waiter.priority]
        lane.waiters.append(waiter)
        if lane.standing_since is None:
            lane.standing_since = waiter.since

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer; nothing happens to one who has been called or refused."""
        lane = self._lanes[waiter.priority]
        if waiter in lane.waiters:
            lane.waiters.remove(waiter)

    def idle(self) -> None:
        """Say that nobody waits and there is a turn to spare."""
        self._spare(self._lanes.values())

    def _spare(self, lanes: Iterable[_Lane]) -> None:
        """There is a turn that these lanes do not want. Only this ends overload: a short queue empties all the time."""
        for lane in lanes:
            lane.standing_since = None

    def next(self, now: float, typical_seconds: float) -> Waiter | None:
        """Take out whoever is next; in an overloaded lane refuse those who have waited too long."""
        weights = {priority: lane.rule.weight for priority, lane in self._lanes.items() if lane.waiters}
        if not weights:
            return None
        self._spare(lane for priority, lane in self._lanes.items() if priority not in weights)
        priority = self._turns.pick(weights)
        lane = self._lanes[priority]
        overloaded = self.overloaded(priority, now, typical_seconds)
        caller = lane.turns.pick(dict.fromkeys((waiter.caller for waiter in lane.waiters), 1.0))
        own = [waiter for waiter in lane.waiters if waiter.caller == caller]
        chosen = own[-1] if overloaded else own[0]
        self.leave(chosen)
        if overloaded:
            self._shed(lane, now - WELCOME_TURNS * typical_seconds, typical_seconds)
        return chosen

    def _shed(self, lane: _Lane, since: float, typical_seconds: float) -> None:
        for waiter in [waiter for waiter in lane.waiters if waiter.since < since]:
            self.leave(waiter)
            if not waiter.called.done():
                waiter.called.set_exception(
                    ResourceExhaustedError(
                        "the service is overloaded: the request waited too long",
                        reason="OVERLOADED",
                        retry_after_seconds=typical_seconds,
                    )
                )
