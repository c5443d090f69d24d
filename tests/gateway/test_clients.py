"""Calls to a real peer: tried again while it is at its limit, left alone while it is unwell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.admission import MESSAGE_BYTES_KEY
from services.common.channels import open_channel
from services.common.errors import BonafideError, DeadlineError, ResourceExhaustedError, UnavailableError
from services.common.server import Service, ServiceProcess
from services.common.settings import ServiceSettings
from services.common.status import unary_errors
from services.common.telemetry import Telemetry
from services.gateway.breaker import BreakerRule, CircuitBreaker, CircuitOpenError, State
from services.gateway.clients import FAIR_SECONDS, Peer
from tests.gateway.test_service import free_address, ready

NAME = "bonafide.v1.FusionService"
REQUEST = fusion_pb2.FuseRequest(policy="p" * 60)


class Fusion(fusion_pb2_grpc.FusionServiceServicer):
    """Answers with each of its errors in turn, then well; remembers what was asked."""

    def __init__(self, *errors: BonafideError | None) -> None:
        self.errors = list(errors)
        self.metadata: list[dict[str, Any]] = []

    @unary_errors
    async def Fuse(self, request: Any, context: Any) -> fusion_pb2.FuseResponse:  # noqa: N802, ARG002
        self.metadata.append(dict(context.invocation_metadata()))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return fusion_pb2.FuseResponse()


@asynccontextmanager
async def peer_of(fusion: Fusion, rule: BreakerRule | None = None) -> AsyncIterator[tuple[Peer, Any, CircuitBreaker]]:
    service = Service(
        "fusion",
        [NAME],
        lambda server: fusion_pb2_grpc.add_FusionServiceServicer_to_server(fusion, server),
        ready,
        Telemetry("fusion"),
    )
    settings = ServiceSettings(listen=free_address(), drain_seconds=0.1, drain_notice_seconds=0.0)
    stop = asyncio.Event()
    task = asyncio.create_task(ServiceProcess(service, settings).serve(stop))
    breaker = CircuitBreaker("it", rule or BreakerRule())
    async with open_channel(settings.listen, max_message_bytes=1 << 20) as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
        stub: Any = fusion_pb2_grpc.FusionServiceStub(channel)
        try:
            yield Peer("it", channel, breaker), stub.Fuse, breaker
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)


def full(retry_after_seconds: float | None = 0.01) -> BonafideError:
    return ResourceExhaustedError("full", reason="CALLS_FULL", retry_after_seconds=retry_after_seconds)


async def test_a_peer_at_its_limit_is_asked_again_within_the_deadline() -> None:
    fusion = Fusion(full(), full())
    async with peer_of(fusion) as (peer, fuse, breaker):
        assert await peer.ask(fuse, REQUEST, timeout=20) == fusion_pb2.FuseResponse()
        assert breaker.state is State.CLOSED
    assert [found[MESSAGE_BYTES_KEY] for found in fusion.metadata] == [str(REQUEST.ByteSize())] * 3


@pytest.mark.parametrize("error", [full(60.0), full(None)], ids=["later than the deadline", "for good"])
async def test_a_refusal_that_cannot_end_in_time_is_final(error: BonafideError) -> None:
    fusion = Fusion(error)
    async with peer_of(fusion) as (peer, fuse, _):
        with pytest.raises(ResourceExhaustedError):
            await peer.ask(fuse, REQUEST, timeout=20)
    assert len(fusion.metadata) == 1


async def test_a_peer_that_keeps_failing_is_left_alone_then_tried_once() -> None:
    fusion = Fusion(*[UnavailableError("away")] * 100)
    rule = BreakerRule(least_calls=3, pause_seconds=0.05)
    async with peer_of(fusion, rule) as (peer, fuse, breaker):
        for _ in range(3):
            with pytest.raises(BonafideError):
                await peer.ask(fuse, REQUEST, timeout=20)
        assert breaker.state is State.OPEN
        asked = len(fusion.metadata)
        with pytest.raises(CircuitOpenError):
            await peer.ask(fuse, REQUEST, timeout=20)
        assert len(fusion.metadata) == asked
        fusion.errors.clear()
        await asyncio.sleep(0.06)
        await peer.ask(fuse, REQUEST, timeout=20)
        assert breaker.state is State.CLOSED


async def test_limits_odd_clips_and_hurried_callers_say_nothing_of_health() -> None:
    fusion = Fusion(full(None), BonafideError("odd", reason="BAD_FRAME"), full(None), BonafideError("a bug of ours"))
    async with peer_of(fusion, BreakerRule(least_calls=1)) as (peer, fuse, breaker):
        for _ in range(4):
            with pytest.raises(BonafideError):
                await peer.ask(fuse, REQUEST, timeout=20)
        with pytest.raises(DeadlineError):
            await peer.ask(fuse, REQUEST, timeout=0)
        assert breaker.state is State.CLOSED


async def test_nobody_there_opens_the_circuit() -> None:
    breaker = CircuitBreaker("it", BreakerRule(least_calls=1))
    async with open_channel(free_address(), max_message_bytes=1 << 20) as channel:
        stub: Any = fusion_pb2_grpc.FusionServiceStub(channel)
        with pytest.raises(UnavailableError):
            await Peer("it", channel, breaker).ask(stub.Fuse, REQUEST, timeout=FAIR_SECONDS)
    assert breaker.state is State.OPEN
