"""Real services on loopback for the tests of this room: a Fusion that does what the policy's name says."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.callers import current_caller
from services.common.errors import InvalidInputError
from services.common.server import Service, ServiceProcess
from services.common.settings import ServiceSettings
from services.common.status import remaining_seconds, unary_errors
from services.common.telemetry import Telemetry

NAME = "bonafide.v1.FusionService"


class Fusion(fusion_pb2_grpc.FusionServiceServicer):
    """Answers by policy name: fails, waits, or tells the deadline it was given; counts its calls."""

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.calls = 0
        self.called = asyncio.Semaphore(0)
        self.callers: list[str] = []

    @unary_errors
    async def Fuse(self, request: fusion_pb2.FuseRequest, context: Any) -> fusion_pb2.FuseResponse:  # noqa: N802
        self.calls += 1
        self.called.release()
        self.callers.append(current_caller().name)
        if request.policy == "invalid":
            raise InvalidInputError("no such thing", reason="BAD_THING")
        if request.policy == "crash":
            raise ValueError("/secret/path")
        if request.policy == "slow":
            await asyncio.sleep(0.3)
        if request.policy == "hang":
            await asyncio.sleep(600)
        return fusion_pb2.FuseResponse(
            probability=remaining_seconds(context, default=5.0, margin=0.1),
            policy=fusion_pb2.PolicyInfo(name=self.title),
        )


async def always_ready() -> None:
    return


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def fusion_service(servicer: Fusion, ready: Any = always_ready, admit: Any = ()) -> Service:
    def register(server: Any) -> None:
        fusion_pb2_grpc.add_FusionServiceServicer_to_server(servicer, server)

    return Service("fusion", [NAME], register, ready, Telemetry("fusion"), admit=admit)


@dataclass
class Running:
    """A service that runs: stop it by its event."""

    settings: ServiceSettings
    servicer: Fusion
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return self.settings.listen


@asynccontextmanager
async def serving(
    ready: Any = always_ready, servicer: Fusion | None = None, admit: Any = (), **settings: Any
) -> AsyncIterator[Running]:
    servicer = servicer or Fusion()
    service = fusion_service(servicer, ready, admit)
    usual = {
        "listen": free_address(),
        "readiness_interval_seconds": 0.05,
        "drain_seconds": 2,
        "drain_notice_seconds": 0,
    }
    running = Running(ServiceSettings(**(usual | settings)), servicer)
    task = asyncio.create_task(ServiceProcess(service, running.settings).serve(running.stop, running.hurry))
    try:
        yield running
    finally:
        running.stop.set()
        await asyncio.wait_for(task, 20)
