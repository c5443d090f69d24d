"""The port that Prometheus scrapes, with good and with bad scrapers."""

import asyncio
import gzip
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.channels import open_channel
from services.common.exposition import MOST_CONNECTIONS, Exposition
from services.common.health import READINESS
from services.common.refusal import ConfigurationError
from services.common.telemetry import READY, REQUESTS, STAGE_DURATION, Telemetry
from tests.common.serving import free_address, serving
from tests.common.test_channels import is_serving, replica
from tests.common.test_life import NOT_SERVING, SERVING, next_status, watch

OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


async def ask(address: str, head: str) -> tuple[int, dict[str, str], bytes]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write((head + "\r\n\r\n").encode())
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    first, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = first.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


async def scrape(address: str, accept: str = OPEN_METRICS) -> dict[str, dict[tuple[str, ...], float]]:
    """Values of all samples, by name and by the values of their labels in the order of their names."""
    status, _, body = await ask(address, f"GET /metrics HTTP/1.1\r\nHost: it\r\nAccept: {accept}")
    assert status == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@asynccontextmanager
async def exposed() -> AsyncIterator[tuple[str, Telemetry]]:
    telemetry = Telemetry("fusion")
    exposition = Exposition(telemetry)
    try:
        yield f"127.0.0.1:{await exposition.start('127.0.0.1:0')}", telemetry
    finally:
        await exposition.close()


async def test_it_speaks_the_format_that_is_asked_for() -> None:
    async with exposed() as (address, telemetry):
        telemetry.observe(STAGE_DURATION, 0.1, stage="sync")
        _, headers, plain = await ask(address, "GET /metrics HTTP/1.1")
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        assert int(headers["content-length"]) == len(plain)
        assert b"# EOF" not in plain
        _, headers, packed = await ask(
            address, f"GET /metrics?x HTTP/1.1\r\nACCEPT: {OPEN_METRICS}\r\nAccept-Encoding: gzip"
        )
        assert headers["content-type"].startswith("application/openmetrics-text")
        assert gzip.decompress(packed).endswith(b"# EOF\n")
        status, headers, body = await ask(address, "HEAD /metrics HTTP/1.0")
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1", 404),
        ("GET /metrics/../secret HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 405),
        ("nonsense", 400),
        ("GET /metrics HTTP/1.1\r\nno header", 400),
        ("GET /metrics HTTP/2", 400),
        ("GET /metrics HTTP/1.1\r\nX: " + "x" * 40_000, 400),
    ],
)
async def test_everything_else_is_refused(head: str, status: int) -> None:
    async with exposed() as (address, _):
        assert (await ask(address, head))[0] == status


async def test_what_is_under_way_is_read_at_the_scrape() -> None:
    async with exposed() as (address, telemetry):
        states = iter([0, 1])
        telemetry.before_scrape(lambda: telemetry.show(READY, next(states)))
        assert [(await scrape(address))[READY.name][()] for _ in range(2)] == [0, 1]


async def test_scrapers_that_hang_hold_up_neither_the_service_nor_its_end() -> None:
    async with serving(metrics_listen=free_address()) as running:
        await is_serving(running.address)
        host, _, port = running.settings.metrics_listen.rpartition(":")
        hanging = [await asyncio.open_connection(host, int(port)) for _ in range(MOST_CONNECTIONS)]
        for _, writer in hanging:
            writer.write(b"GET /metrics HTTP/1.1\r\n")
        beyond, writer = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(beyond.read(), 10) == b""
        async with open_channel(running.address, max_message_bytes=1 << 20) as channel:
            await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=5)
        hanging[0][1].close()
        await asyncio.sleep(0.1)
        assert (await scrape(running.settings.metrics_listen))[REQUESTS.name]["OK", "Fuse"] == 1
    for _, other in [*hanging, (beyond, writer)]:
        other.close()


async def test_a_port_that_is_taken_or_none_is_refused_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for address in (
            f"127.0.0.1:{taken.getsockname()[1]}",
            "127.0.0.1",
            "127.0.0.1:99999",
            "no.such.host.invalid:1",
        ):
            with pytest.raises(ConfigurationError, match=f"cannot listen on {address}"):
                await Exposition(Telemetry("fusion")).start(address)


async def test_a_service_is_scraped_to_the_end_of_its_drain() -> None:
    address, metrics = free_address(), free_address()
    async with (
        replica(address, metrics_listen=metrics, drain_notice_seconds=1.5) as process,
        open_channel(address, max_message_bytes=1 << 20) as channel,
    ):
        await is_serving(address)
        watching = watch(channel, READINESS)
        assert await next_status(watching) == SERVING
        assert (await scrape(metrics))[READY.name][()] == 1
        process.send_signal(signal.SIGTERM)
        assert await next_status(watching) == NOT_SERVING
        assert (await scrape(metrics))[READY.name][()] == 0
        assert await asyncio.wait_for(process.wait(), 20) == 0
        with pytest.raises(OSError, match="Connect"):
            await scrape(metrics)
