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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as client

from benchmarks.processor_time import precise_seconds
from deploy.local import triton
from deploy.local.processes import ManagedProcess, free_ports, stop_together
from deploy.local.stack import ROOT
from services.common.inference import TritonEngine, TritonLimits
from services.common.memory import keep_freed_memory

Inputs = dict[str, npt.NDArray[Any]]
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


async def _measure(engine: TritonEngine, model: str, inputs: Inputs, calls: int, pid: int) -> Cost:
    own, server, walls = time.process_time(), precise_seconds(pid), []
    for _ in range(calls):
        began = time.perf_counter()
        await engine.infer(model, inputs, timeout=60)
        walls.append(time.perf_counter() - began)
    spent = time.process_time() - own, precise_seconds(pid) - server
    return Cost(spent[0] / calls * 1e3, spent[1] / calls * 1e3, statistics.median(walls) * 1e3)


async def compare(address: str, pid: int, rounds: int, calls: int) -> dict[str, dict[str, Cost]]:
    """Case → way → medians over rounds."""
    ways = {
        "plain": TritonEngine(address, limits=TritonLimits(shared_regions=0)),
        "shared": TritonEngine(address, limits=TritonLimits(shared_from_bytes=1)),
    }
    results: dict[str, dict[str, Cost]] = {}
    random = np.random.default_rng(0)
    for case, (model, name, shape) in CASES.items():
        inputs = {name: random.integers(0, 256, shape, dtype=np.uint8)}
        costs: dict[str, list[Cost]] = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way, engine in ways.items():
                cost = await _measure(engine, model, inputs, calls if turn else 3, pid)
                if turn:
                    costs[way].append(cost)
        results[case] = {way: _median(found) for way, found in costs.items()}
    if not ways["shared"].by_shared_memory:
        raise SystemExit("shared memory was not used")
    for engine in ways.values():
        await engine.close()
    return results


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, part) for cost in costs) for part in ("client", "server", "wall")))


def main() -> None:
    """Start a server, measure, print a table and, when asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--page", type=Path, help="also write the table as Markdown")
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
    print("\n".join(_table(results)))
    if options.page is not None:
        options.page.write_text(_page(results, options.rounds, options.calls), encoding="utf-8")
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


_HEAD = """# What the hop to Triton costs

Processor time of one call in milliseconds (and its wall time), client plus server with the model itself, when the
tensor travels in the gRPC message and when it lies in system shared memory. Services choose by themselves
(`services/common/tensor_passing.py`). Both ways took turns; medians of {rounds} rounds of {calls} calls on two shared,
busy cores. Written by `make bench-hop PAGE=docs/triton-hop.md`.
"""
_FOOT = """
Shared memory saves {least:.1f} to {most:.1f} ms a megabyte, which is {small:.0%} to {large:.0%} of a call with its
network: the larger the tensor and the smaller the network, the more. Tensors below half a megabyte stay in messages.
"""


def _page(results: dict[str, dict[str, Cost]], rounds: int, calls: int) -> str:
    saved, shares = [], []
    for case, ways in results.items():
        plain, shared = (cost.client + cost.server for cost in ways.values())
        saved.append((plain - shared) / (np.prod(CASES[case][2]) / 1e6))
        shares.append(1 - shared / plain)
    foot = _FOOT.format(least=min(saved), most=max(saved), small=min(shares), large=max(shares))
    return "\n".join([_HEAD.format(rounds=rounds, calls=calls), *_table(results), foot])


def _table(results: dict[str, dict[str, Cost]]) -> list[str]:
    rows = [
        "| call | MB | in the message: client + server (wall) | in shared memory | ratio |",
        "|---|---|---|---|---|",
    ]
    for case, ways in results.items():
        size = np.prod(CASES[case][2]) / 1e6
        cells = [f"{cost.client:.2f} + {cost.server:.2f} ({cost.wall:.0f})" for cost in ways.values()]
        plain, shared = (cost.client + cost.server for cost in ways.values())
        rows.append(f"| {case} | {size:.2f} | {cells[0]} | {cells[1]} | {shared / plain:.2f} |")
    return rows


if __name__ == "__main__":
    main()
