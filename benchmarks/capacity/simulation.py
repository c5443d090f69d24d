"""A discrete-event simulation of the stack under bursts, the loss of a node, and scaling that comes late.

Each stage is a pool of servers (cores, GPUs, networks of nodes) with one queue. A clip is decoded by the gateway, its
pictures cross the network and go through visual and Triton while its sound goes through audio, and fusion weighs both.
Every 15 seconds a scaler looks at each pool as a HorizontalPodAutoscaler does. Figures come from ``model``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from benchmarks.capacity.assumptions import Assumptions
from benchmarks.capacity.model import ClipCost, network_seconds

Events = Generator[simpy.Event, Any, None]
NETWORK = "network"
SYNC_SECONDS = 15.0
CALM_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load: clips a minute, what a burst multiplies it by and when, and when which share of every pool is lost."""

    clips_a_minute: float
    seconds: float = 2400.0
    burst: float = 3.0
    burst_seconds: tuple[float, float] = (600.0, 900.0)
    loss_at: float = 1800.0
    lost_share: float = 0.1

    def rate(self, now: float) -> float:
        """Clips a second."""
        begin, end = self.burst_seconds
        return self.clips_a_minute / 60 * (self.burst if begin <= now < end else 1.0)


@dataclass(slots=True)
class Pool:
    """Servers with one queue. ``debt`` are servers that go as soon as they are free."""

    environment: simpy.Environment
    name: str
    servers: int
    least: int
    start_seconds: float
    buy_seconds: float
    free: simpy.Container = field(init=False)
    debt: int = 0
    coming: int = 0
    busy: int = 0
    busy_seconds: float = 0.0
    changed: float = 0.0
    losses: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Everything is free at first."""
        self.free = simpy.Container(self.environment, init=self.servers)

    @property
    def waiting(self) -> int:
        """Clips in the queue."""
        return len(self.free.get_queue)

    def serve(self, seconds: float, chance: Callable[[], float]) -> Events:
        """Wait for a server, use it; what is lost with its node is done again."""
        while True:
            yield self.free.get(1)
            began = self.environment.now
            self._count(1)
            yield self.environment.timeout(seconds)
            self._count(-1)
            if self.debt:
                self.debt -= 1
            else:
                self.free.put(1)
            if not any(when > began and chance() < share for when, share in self.losses[-2:]):
                return

    def grow(self, servers: int, delay: float) -> Events:
        """Servers that come after a delay."""
        self.coming += servers
        yield self.environment.timeout(delay)
        self.coming -= servers
        self.servers += servers
        paid = min(self.debt, servers)
        self.debt -= paid
        if servers > paid:
            self.free.put(servers - paid)

    def shrink(self, servers: int) -> None:
        """Take servers away, idle ones first."""
        self.servers -= servers
        idle = min(int(self.free.level), servers)
        if idle:
            self.free.get(idle)
        self.debt += servers - idle

    def lose(self, share: float) -> None:
        """A node ends without a word."""
        self.losses.append((self.environment.now, share))
        self.shrink(min(self.servers - 1, max(1, round(self.servers * share))))

    def use_since(self, seconds: float) -> float:
        """Share of server time that was used since it was asked last."""
        self._count(0)
        used, self.busy_seconds = self.busy_seconds, 0.0
        return used / max(self.servers * seconds, 1e-9)

    def _count(self, change: int) -> None:
        now = self.environment.now
        self.busy_seconds += self.busy * (now - self.changed)
        self.busy += change
        self.changed = now


@dataclass(slots=True)
class Record:
    """What a run left: latencies by time of arrival, refusals, and samples of every pool."""

    latencies: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    server_seconds: dict[str, float] = field(default_factory=dict)


class Simulation:
    """One run."""

    def __init__(self, scenario: Scenario, cost: ClipCost, assumed: Assumptions, *, target: float, seed: int) -> None:
        self._environment = simpy.Environment()
        self._scenario, self._cost, self._assumed, self._target = scenario, cost, assumed, target
        self._random = np.random.default_rng(seed)
        self._shape = math.sqrt(math.log1p(assumed.spread**2))
        self.record = Record()
        self._seconds = {**cost.cores, "triton": cost.gpu, NETWORK: network_seconds(cost, assumed)}
        self.pools = {name: self._pool(name, seconds) for name, seconds in self._seconds.items()}

    def run(self) -> Record:
        """Simulate to the end."""
        environment = self._environment
        environment.process(self._arrivals())
        environment.process(self._scaler())
        environment.process(self._loss())
        environment.run(self._scenario.seconds)
        return self.record

    def _pool(self, name: str, seconds: float) -> Pool:
        steady = self._scenario.clips_a_minute / 60 * seconds / self._target
        servers = max(2, math.ceil(steady))
        buy = self._assumed.gpu_node_seconds if name == "triton" else self._assumed.node_seconds
        return Pool(self._environment, name, servers, servers, self._assumed.pod_seconds, buy)

    def _arrivals(self) -> Events:
        while True:
            yield self._environment.timeout(self._random.exponential(1 / self._scenario.rate(self._environment.now)))
            gateway = self.pools["gateway"]
            if gateway.waiting * self._cost.cores["gateway"] > self._assumed.patience_seconds * gateway.servers:
                self.record.refused.append(self._environment.now)
            else:
                self._environment.process(self._clip())

    def _clip(self) -> Events:
        began = self._environment.now
        yield from self._stage("gateway")
        sound = self._environment.process(self._stage("audio"))
        for name in (NETWORK, "visual", "triton"):
            yield from self._stage(name)
        yield sound
        yield from self._stage("fusion")
        self.record.latencies.append((began, self._environment.now - began))

    def _stage(self, name: str) -> Events:
        seconds = self._seconds[name] * self._random.lognormal(-(self._shape**2) / 2, self._shape)
        yield from self.pools[name].serve(seconds, self._random.random)

    def _loss(self) -> Events:
        yield self._environment.timeout(self._scenario.loss_at)
        for pool in self.pools.values():
            pool.lose(self._scenario.lost_share)

    def _scaler(self) -> Events:
        calm: dict[str, float] = dict.fromkeys(self.pools, 0.0)
        while True:
            yield self._environment.timeout(SYNC_SECONDS)
            sample = {"time": self._environment.now, "rate": self._scenario.rate(self._environment.now)}
            for name, pool in self.pools.items():
                use = pool.use_since(SYNC_SECONDS)
                self.record.server_seconds[name] = (
                    self.record.server_seconds.get(name, 0.0) + pool.servers * SYNC_SECONDS
                )
                sample |= {f"{name}_servers": pool.servers, f"{name}_waiting": pool.waiting, f"{name}_use": use}
                self._scale(pool, use, calm)
            self.record.samples.append(sample)

    def _scale(self, pool: Pool, use: float, calm: dict[str, float]) -> None:
        now = self._environment.now
        wanted = max(pool.least, math.ceil(pool.servers * use / self._target))
        if wanted > pool.servers * 1.1:
            calm[pool.name] = now
            wanted = min(wanted, max(pool.servers * 2, pool.servers + 2))
            more = wanted - pool.servers - pool.coming
            if more > 0:
                near = min(more, max(1, math.floor(pool.servers * self._assumed.spare_share) - pool.coming))
                self._environment.process(pool.grow(near, pool.start_seconds))
                if more > near:
                    self._environment.process(pool.grow(more - near, pool.buy_seconds))
        elif wanted < pool.servers and now - calm[pool.name] > CALM_SECONDS:
            pool.shrink(min(pool.servers - wanted, max(1, pool.servers // 4)))
