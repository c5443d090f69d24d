"""What the hop to Triton costs by plain gRPC and by system shared memory, on the tensors that services send.

Both ways take turns, so that a noisy machine disturbs both alike. Processor time is that of this process
and of the whole server, models included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as client
from tritonclient.utils import np_to_triton_dtype, shared_memory

from benchmarks.processor_time import processor_seconds
from deploy.local import triton
from deploy.local.processes import ManagedProcess, free_ports, stop_together
from deploy.local.stack import ROOT
from services.common.memory import keep_freed_memory

Array = npt.NDArray[Any]
CASES = {
    "patch_gate 8 crops": ("patch_gate", "crops", (8, 224, 224, 3)),
    "patch_gate 32 crops": ("patch_gate", "crops", (32, 224, 224, 3)),
    "frame_classifier 8 crops": ("frame_classifier", "crops", (8, 224, 224, 3)),
    "face_landmarker 8 crops": ("face_landmarker", "crops", (8, 256, 256, 3)),
    "face_detector 4 small frames": ("face_detector", "frames", (4, 192, 320, 3)),
    "face_detector 4 survey frames": ("face_detector", "frames", (4, 384, 640, 3)),
}
"""Name → model, input and shape of the calls that make up a clip; all uint8."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call, milliseconds: processor of client and server, and median wall."""

    client: float
    server: float
    wall: float


class Hop:
    """One tensor sent to one model, in two ways."""

    def __init__(self, server: client.InferenceServerClient, model: str, name: str, values: Array) -> None:
        self._server = server
        self._model = model
        self._name = name
        self._values = values
        self._key = f"/bonafide-{os.getpid()}-hop"
        self._region: Any = None

    async def __aenter__(self) -> Self:
        size = self._values.nbytes
        self._region = shared_memory.create_shared_memory_region("hop", self._key, size)
        await self._server.register_system_shared_memory("hop", self._key, size)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.unregister_system_shared_memory("hop")
        shared_memory.destroy_shared_memory_region(self._region)

    async def plain(self) -> None:
        """The tensor inside the message."""
        tensor = self._tensor()
        tensor.set_data_from_numpy(self._values)
        await self._server.infer(self._model, [tensor])

    async def shared(self) -> None:
        """The tensor copied into a region that the server has mapped."""
        shared_memory.set_shared_memory_region(self._region, [self._values])
        tensor = self._tensor()
        tensor.set_shared_memory("hop", self._values.nbytes)
        await self._server.infer(self._model, [tensor])

    def _tensor(self) -> client.InferInput:
        return client.InferInput(self._name, list(self._values.shape), np_to_triton_dtype(self._values.dtype))


async def _measure(way: Callable[[], Awaitable[None]], calls: int, pid: int) -> Cost:
    own, server, walls = time.process_time(), processor_seconds(pid), []
    for _ in range(calls):
        began = time.perf_counter()
        await way()
        walls.append(time.perf_counter() - began)
    spent = time.process_time() - own, processor_seconds(pid) - server
    return Cost(spent[0] / calls * 1e3, spent[1] / calls * 1e3, statistics.median(walls) * 1e3)


async def compare(address: str, pid: int, rounds: int, calls: int) -> dict[str, dict[str, Cost]]:
    """Case → way → medians over rounds."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    results: dict[str, dict[str, Cost]] = {}
    random = np.random.default_rng(0)
    async with client.InferenceServerClient(url=address, channel_args=options) as server:
        for case, (model, name, shape) in CASES.items():
            values = random.integers(0, 256, shape, dtype=np.uint8)
            async with Hop(server, model, name, values) as hop:
                ways = {"plain": hop.plain, "shared": hop.shared}
                costs: dict[str, list[Cost]] = {way: [] for way in ways}
                for turn in range(rounds + 1):
                    for way, call in ways.items():
                        cost = await _measure(call, calls if turn else 3, pid)
                        if turn:
                            costs[way].append(cost)
                results[case] = {way: _median(found) for way, found in costs.items()}
    return results


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, part) for cost in costs) for part in ("client", "server", "wall")))


def main() -> None:
    """Start a server, measure, print a table and, when asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=12, help="calls of each way a round")
    options = parser.parse_args()
    keep_freed_memory()  # as every service does
    with tempfile.TemporaryDirectory() as directory:
        installation = triton.find_installation(ROOT / ".venv-triton")
        grpc_port, metrics_port = free_ports(2)
        plan = triton.TritonPlan(
            installation=installation,
            repository=ROOT / "model_repository",
            models=sorted({model for model, _, _ in CASES.values()}),
            backends=triton.assemble_backends(installation, Path(directory)),
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            shared_memory_prefix=triton.shared_memory_prefix(os.getpid()),
        )
        process = ManagedProcess("triton", plan.command(), plan.environment(), Path(directory) / "triton.log")
        try:
            address = f"127.0.0.1:{grpc_port}"
            asyncio.run(_ready(address, plan.models))
            results = asyncio.run(compare(address, process.pid, options.rounds, options.calls))
        finally:
            stop_together([process], 10)
            triton.remove_shared_memory(os.getpid())
    _print(results)
    if options.out is not None:
        plain = {case: {way: _rounded(cost) for way, cost in ways.items()} for case, ways in results.items()}
        options.out.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


async def _ready(address: str, models: Sequence[str]) -> None:
    async with client.InferenceServerClient(url=address) as server:
        for _ in range(600):
            try:
                if all([await server.is_model_ready(model, client_timeout=1) for model in models]):
                    return
            except Exception:  # noqa: BLE001, S110 - not up yet
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the server was not ready in time")


def _rounded(cost: Cost) -> dict[str, float]:
    return {f"{part}_ms": round(getattr(cost, part), 2) for part in ("client", "server", "wall")}


def _print(results: dict[str, dict[str, Cost]]) -> None:
    print("| call | MB | plain gRPC: client + server CPU ms (wall) | shared memory | CPU ratio |")
    print("|---|---|---|---|---|")
    for case, ways in results.items():
        size = np.prod(CASES[case][2]) / 1e6
        cells = [f"{cost.client:.2f} + {cost.server:.2f} ({cost.wall:.1f})" for cost in ways.values()]
        plain, shared = (cost.client + cost.server for cost in ways.values())
        print(f"| {case} | {size:.2f} | {cells[0]} | {cells[1]} | {shared / plain:.2f} |")


if __name__ == "__main__":
    main()
