"""What a clip costs: the whole stack against a raw loop over the same clips, in one run.

Stack and raw loop take turns on every clip, so that a noisy machine disturbs both alike; the medians of
their costs are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.clips import CLASSES, ClipClass, kept_clip
from benchmarks.processor_time import processor_seconds
from benchmarks.raw_loop import RawLoop, StageCost
from bonafide.client import Client
from deploy.local.stack import ROOT, Stack, StackOptions
from services.audio.pipeline import AudioPipeline
from services.audio.settings import AudioSettings
from services.common.memory import keep_freed_memory
from services.common.settings import EngineChoice
from services.fusion.pipeline import FusionPipeline
from services.fusion.settings import FusionSettings
from services.fusion.store import HeadStore
from services.fusion.synchrony import Synchrony
from services.visual.pipeline import VisualPipeline
from services.visual.settings import VisualSettings

CACHE = ROOT / ".cache" / "benchmark"
_PAGE_HEAD = """# What a clip costs

Processor seconds of one clip: the whole stack (gateway, visual, audio, fusion and {engine}, real processes on
loopback) against a raw loop that calls the same decoder, pipelines and ONNX files in one process. Both take turns on
the same clips; medians of {rounds} rounds on two shared cores. Written by `make bench PAGE=docs/benchmark.md`.

| clip | raw loop, CPU s | stack, CPU s | CPU ratio | wall ratio |
|---|---|---|---|---|"""
_PAGE_FOOT = """The target is a CPU ratio of at most 1.5 on 10-second 720p clips. What the stack adds is moving
pictures: the gateway serialises them (survey at native size, 10 s of dense frames), visual reads them and passes crops
and reduced pictures on to Triton, large ones by shared memory ([triton-hop.md](triton-hop.md)). Services keep freed
memory (`services/common/memory.py`): before they did, the page faults of those copies cost a further 0.8 s a clip. Wall
time is higher than the raw loop's where it must wait for a hop; with more than two cores the branches run side by side
and it falls.
"""


@dataclass(frozen=True, slots=True)
class ClipResult:
    """Costs of one clip class: a median over rounds for each stage and process, seconds."""

    kind: ClipClass
    raw: dict[str, StageCost]
    stack_processor: dict[str, float]
    stack_wall: float

    @property
    def cpu_ratio(self) -> float:
        """Processor seconds of the stack over those of the raw loop."""
        return sum(self.stack_processor.values()) / sum(cost.processor for cost in self.raw.values())

    @property
    def wall_ratio(self) -> float:
        """Wall seconds of the stack over those of the raw loop."""
        return self.stack_wall / sum(cost.wall for cost in self.raw.values())

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "cpu_ratio": round(self.cpu_ratio, 3),
            "wall_ratio": round(self.wall_ratio, 3),
            "stack_cpu_seconds": {name: round(value, 3) for name, value in self.stack_processor.items()},
            "stack_wall_seconds": round(self.stack_wall, 3),
            "raw_cpu_seconds": {stage: round(cost.processor, 3) for stage, cost in self.raw.items()},
            "raw_wall_seconds": {stage: round(cost.wall, 3) for stage, cost in self.raw.items()},
        }


def main() -> None:
    """Measure, print a table and, when asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--page", type=Path, help="also write the table as Markdown")
    parser.add_argument("--rounds", type=int, default=3, help="times each clip is analysed by each side")
    options = parser.parse_args()
    keep_freed_memory()  # as every service does
    loop = _raw_loop()
    afresh = {"BONAFIDE_GATEWAY_ANSWERS_BYTES": "0"}  # or all rounds but the first would cost nothing
    with Stack(StackOptions(environment=afresh), say=lambda _: None) as stack, Client(stack.gateway) as client:
        results = [
            _measure(kind, loop, stack, client, options.rounds)
            for kind in track(CLASSES, "measuring", console=Console(stderr=True), transient=True)
        ]
        engine = stack.engine.value
    _print(results, engine)
    if options.out is not None:
        report = {"engine": engine, "rounds": options.rounds, "clips": {r.kind.name: r.to_dict() for r in results}}
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if options.page is not None:
        options.page.write_text(_page(results, engine, options.rounds), encoding="utf-8")


def _raw_loop() -> RawLoop:
    repository = ROOT / "model_repository"
    visual = VisualSettings(engine=EngineChoice.EMBEDDED, model_repository=repository)
    audio = AudioSettings(engine=EngineChoice.EMBEDDED, model_repository=repository)
    fusion = FusionSettings(engine=EngineChoice.EMBEDDED, model_repository=repository)
    engine = visual.open_engine()
    store = HeadStore(fusion.heads, fusion.policies, fusion.default_policy)
    store.refresh()
    return RawLoop(
        VisualPipeline(engine, visual),
        AudioPipeline(engine, audio.repository(), audio.window_plan()),
        FusionPipeline(store, Synchrony(engine, fusion.repository())),
    )


def _measure(kind: ClipClass, loop: RawLoop, stack: Stack, client: Client, rounds: int) -> ClipResult:
    clip = kept_clip(kind, CACHE)
    raws: list[dict[str, StageCost]] = []
    processors: list[dict[str, float]] = []
    walls: list[float] = []
    for turn in range(rounds + 1):
        raw = asyncio.run(loop.analyze(clip))
        before = {name: processor_seconds(pid) for name, pid in stack.pids.items()}
        began = time.perf_counter()
        client.analyze(clip)
        wall = time.perf_counter() - began
        spent = {name: processor_seconds(pid) - before[name] for name, pid in stack.pids.items()}
        if turn:  # the first turn of each side warms caches and allocators
            raws.append(raw)
            processors.append(spent)
            walls.append(wall)
    return ClipResult(
        kind,
        {stage: _median_cost([raw[stage] for raw in raws]) for stage in raws[0]},
        {name: statistics.median(spent[name] for spent in processors) for name in processors[0]},
        statistics.median(walls),
    )


def _median_cost(costs: Sequence[StageCost]) -> StageCost:
    return StageCost(
        statistics.median(cost.processor for cost in costs), statistics.median(cost.wall for cost in costs)
    )


def _page(results: Sequence[ClipResult], engine: str, rounds: int) -> str:
    rows = [
        f"| {result.kind.name} | {_listed({stage: cost.processor for stage, cost in result.raw.items()})} "
        f"| {_listed(result.stack_processor)} | {result.cpu_ratio:.2f} | {result.wall_ratio:.2f} |"
        for result in results
    ]
    return "\n".join([_PAGE_HEAD.format(engine=engine, rounds=rounds), *rows, "", _PAGE_FOOT])


def _listed(seconds: dict[str, float]) -> str:
    return f"{sum(seconds.values()):.2f} ({', '.join(f'{name} {value:.2f}' for name, value in seconds.items())})"


def _print(results: Sequence[ClipResult], engine: str) -> None:
    table = Table(title=f"Processor seconds a clip: the stack ({engine}) against the raw loop", title_justify="left")
    for heading in ("clip", "raw loop: by stage", "raw", "stack: by process", "stack", "CPU ratio", "wall ratio"):
        table.add_column(heading, justify="left" if ":" in heading or heading == "clip" else "right")
    for result in results:
        stages = ", ".join(f"{stage} {cost.processor:.2f}" for stage, cost in result.raw.items())
        processes = ", ".join(f"{name} {value:.2f}" for name, value in result.stack_processor.items())
        table.add_row(
            result.kind.name,
            stages,
            f"{sum(cost.processor for cost in result.raw.values()):.2f}",
            processes,
            f"{sum(result.stack_processor.values()):.2f}",
            f"{result.cpu_ratio:.2f}",
            f"{result.wall_ratio:.2f}",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
