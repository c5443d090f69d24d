"""Channels to services with replicas: real processes behind a real name that come, go and die under load."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from bonafide.v1 import evidence_pb2, fusion_pb2, fusion_pb2_grpc
from services.common.channels import ServiceChannel, open_channel
from tests.common.names import Names, name_server
from tests.common.serving import NAME, Fusion, free_address, serving

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
MESSAGE_BYTES = 1 << 26
SETTINGS = {"readiness_interval_seconds": 0.05, "drain_seconds": 5, "max_message_bytes": MESSAGE_BYTES}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def replica(address: str, **settings: float) -> AsyncIterator[asyncio.subprocess.Process]:
    given = json.dumps({"listen": address, **SETTINGS, **settings})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.common.replica", address, given, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def channel_to(names: Names, port: int) -> ServiceChannel:
    target = f"dns://127.0.0.1:{names.port}/replicas.test:{port}"
    return open_channel(target, max_message_bytes=MESSAGE_BYTES, service=NAME)


async def is_serving(address: str) -> None:
    """Return when a replica of its own process is ready."""
    async with open_channel(address, max_message_bytes=1 << 20, service=NAME) as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)


class Load:
    """Calls without a pause, and counts who answered; the first failure ends it."""

    def __init__(self, channel: grpc.aio.Channel, request: fusion_pb2.FuseRequest, workers: int = 6) -> None:
        self._stub = fusion_pb2_grpc.FusionServiceStub(channel)
        self._request = request
        self._over = False
        self.answers: Counter[str] = Counter()
        self._workers = [asyncio.create_task(self._work()) for _ in range(workers)]

    async def _work(self) -> None:
        while not self._over:
            answer = await self._stub.Fuse(self._request, timeout=20)
            self.answers[answer.policy.name] += 1

    async def until_answered_by(self, *replicas: str) -> None:
        """Return when each of them has answered from now on; fails with the first call that does."""
        before = Counter(self.answers)
        async with asyncio.timeout(40):
            while not all(self.answers[each] > before[each] for each in replicas):
                done, _ = await asyncio.wait(self._workers, timeout=0.05, return_when=asyncio.FIRST_EXCEPTION)
                for worker in done:
                    worker.result()

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._workers)


async def test_new_replicas_take_traffic_and_a_killed_one_loses_no_request(record_property: Any) -> None:
    port = free_port()
    first, *others = (f"{host}:{port}" for host in HOSTS)
    request = fusion_pb2.FuseRequest(policy="slow", voice=evidence_pb2.VoiceSequence(values=[0.5] * 500_000))
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(name_server(HOSTS[:1]))
        channel = await stack.enter_async_context(channel_to(names, port))
        processes = {first: await stack.enter_async_context(replica(first))}
        await asyncio.wait_for(channel.channel_ready(), 30)
        load = Load(channel, request)
        await load.until_answered_by(first)
        for address in others:
            processes[address] = await stack.enter_async_context(replica(address))
        await asyncio.gather(*(is_serving(address) for address in others))
        names.addresses, began = HOSTS, time.monotonic()
        await load.until_answered_by(first, *others)
        record_property("seconds until new replicas took traffic", round(time.monotonic() - began, 2))
        # Killed with calls of two megabytes in flight, and not told to the name server.
        processes[first].kill()
        await processes[first].wait()
        await load.until_answered_by(*others)
        # Told to stop, one ends its calls and callers leave it before it refuses any.
        processes[others[0]].send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(processes[others[0]].wait(), 30) == 0
        await load.until_answered_by(others[1])
        await load.stop()


async def test_a_replica_that_is_not_ready_gets_no_calls_until_it_is() -> None:
    port = free_port()
    one, other = (f"{host}:{port}" for host in HOSTS[:2])
    is_ready = asyncio.Event()

    async def ready() -> None:
        if not is_ready.is_set():
            raise grpc.aio.UsageError  # any failure of the check

    async with (
        name_server(HOSTS[:2]) as names,
        channel_to(names, port) as channel,
        serving(listen=one, servicer=Fusion(one)),
        serving(listen=other, servicer=Fusion(other), ready=ready) as waiting,
    ):
        await asyncio.wait_for(channel.channel_ready(), 10)
        load = Load(channel, fusion_pb2.FuseRequest(), workers=2)
        await load.until_answered_by(one)
        assert waiting.servicer.calls == 0
        is_ready.set()
        await load.until_answered_by(one, other)
        is_ready.clear()
        await asyncio.sleep(0.5)
        before = waiting.servicer.calls
        await load.until_answered_by(one)
        assert waiting.servicer.calls == before
        await load.stop()


async def test_calls_with_a_replica_that_hangs_are_answered_by_another() -> None:
    port = free_port()
    hanging, other = (f"{host}:{port}" for host in HOSTS[:2])
    async with (
        name_server(HOSTS[:2]) as names,
        channel_to(names, port) as channel,
        replica(hanging) as process,
        replica(other),
    ):
        await asyncio.gather(is_serving(hanging), is_serving(other))
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        load = Load(channel, fusion_pb2.FuseRequest(policy="slow"), workers=4)
        await load.until_answered_by(hanging, other)
        await load.stop()
        calls = [stub.Fuse(fusion_pb2.FuseRequest(policy="slow"), timeout=60) for _ in range(4)]
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        assert {(await call).policy.name for call in calls} == {other}


async def test_connections_of_replaced_age_do_not_pile_up() -> None:
    def open_connections(port: int) -> int:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        established = [line.split() for line in lines if line.split()[3] == "01"]
        return sum(int(line[1].rpartition(":")[2], 16) == port for line in established)

    async with serving(connection_age_seconds=0.3) as running:
        port = int(running.address.rpartition(":")[2])
        async with open_channel(running.address, max_message_bytes=1 << 20, service=NAME) as channel:
            load = Load(channel, fusion_pb2.FuseRequest(), workers=2)
            await asyncio.sleep(3)
            assert open_connections(port) <= 3
            await load.stop()


async def test_every_call_has_a_deadline_and_the_shorter_one_wins() -> None:
    async with (
        serving() as running,
        open_channel(running.address, max_message_bytes=1 << 20, default_timeout=2.0) as channel,
    ):
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        assert 0 < (await stub.Fuse(fusion_pb2.FuseRequest())).probability < 2
        assert 0 < (await stub.Fuse(fusion_pb2.FuseRequest(), timeout=1)).probability < 1


async def test_start_up_order_does_not_matter() -> None:
    address = free_address()
    async with open_channel(address, max_message_bytes=1 << 20, service=NAME) as channel:
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as early:
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=5)
        assert early.value.code() is grpc.StatusCode.UNAVAILABLE
        async with serving(listen=address):
            await asyncio.wait_for(channel.channel_ready(), 20)
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=5)
