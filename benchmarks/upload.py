"""How large a message of an upload should be: both clients send to a server that only hashes, on loopback.

Sizes take turns, so that a noisy machine disturbs all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from benchmarks.processor_time import precise_seconds
from bonafide import AsyncClient, Client
from bonafide.uploads import CHUNK_BYTES
from bonafide.v1 import analysis_pb2, fusion_pb2

_SERVICE = "bonafide.v1.AnalysisService"
SIZES_KIB = (16, 32, 64, 128, 256, 512, 1024)
_HEAD = """# How large a chunk should be

Uploads of {megabytes} MiB over loopback to a server that hashes what it gets, in chunks of several sizes, which took
turns; medians of {rounds} rounds on two shared, busy cores. Processor seconds are those of client and server together.
Written by `make bench-upload PAGE=docs/upload.md`. The clients use {chosen} KiB; the server refuses chunks over 1 MiB.

| chunk, KiB | Client, MiB/s | CPU s a GiB | AsyncClient, MiB/s | CPU s a GiB |
|---|---|---|---|---|"""


async def _hash(requests: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - gRPC's
    """``Analyze`` that hashes what arrives and answers with an empty analysis."""
    digest = hashlib.sha256()
    async for request in requests:
        digest.update(request.chunk)
    yield analysis_pb2.AnalyzeResponse(analysis=analysis_pb2.Analysis(verdict=fusion_pb2.VERDICT_INCONCLUSIVE))


async def serve() -> None:
    """Serve on a free port, whose address is printed, until killed."""
    server = grpc.aio.server()
    analyze = grpc.stream_stream_rpc_method_handler(
        _hash, analysis_pb2.AnalyzeRequest.FromString, analysis_pb2.AnalyzeResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Analyze": analyze}),))
    state = health.aio.HealthServicer()
    await state.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


def _measure(send: Any, pid: int) -> tuple[float, float]:  # noqa: ANN401 - either client's way
    """Wall and processor seconds of one upload."""
    began, own, other = time.perf_counter(), time.process_time(), precise_seconds(pid)
    send()
    return time.perf_counter() - began, time.process_time() - own + precise_seconds(pid) - other


def compare(address: str, pid: int, megabytes: int, rounds: int) -> list[str]:
    """Rows of the table."""
    clip = bytes(megabytes << 20)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for turn in range(rounds + 1):
        for size in SIZES_KIB:
            ways = {
                "sync": lambda size=size: _sync(address, clip, size),
                "async": lambda size=size: _async(address, clip, size),
            }
            for way, send in ways.items():
                cost = _measure(send, pid)
                if turn:
                    found.setdefault((way, size), []).append(cost)
    rows = []
    for size in SIZES_KIB:
        cells = []
        for way in ("sync", "async"):
            wall = statistics.median(cost[0] for cost in found[way, size])
            processor = statistics.median(cost[1] for cost in found[way, size])
            cells += [f"{megabytes / wall:.0f}", f"{processor * 1024 / megabytes:.2f}"]
        rows.append(f"| {size} | {' | '.join(cells)} |")
    return rows


def _sync(address: str, clip: bytes, kib: int) -> None:
    with Client(address, chunk_bytes=kib << 10) as client:
        client.analyze(clip, timeout=60)


def _async(address: str, clip: bytes, kib: int) -> None:
    async def run() -> None:
        async with AsyncClient(address, chunk_bytes=kib << 10) as client:
            await client.analyze(clip, timeout=60)

    asyncio.run(run())


def main() -> None:
    """Start a server, measure, print a table and, when asked, write Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--page", type=Path, help="also write the table as Markdown")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=48)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    command = [sys.executable, "-m", "benchmarks.upload", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - ourselves
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            rows = compare(address, server.pid, options.megabytes, options.rounds)
        finally:
            server.kill()
    head = _HEAD.format(megabytes=options.megabytes, rounds=options.rounds, chosen=CHUNK_BYTES >> 10)
    text = "\n".join([head, *rows, ""])
    print(text)
    if options.page is not None:
        options.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
