"""Runs the scenarios and writes docs/capacity.md with its plots: ``make capacity``."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.capacity.assumptions import Assumptions
from benchmarks.capacity.limits import limits
from benchmarks.capacity.model import MEASURED, STAGES, ClipCost, Needs, load_measured, mean_clip, needs
from benchmarks.capacity.simulation import NETWORK, Record, Scenario, Simulation

mpl.use("Agg")
from matplotlib import pyplot as plt

PAGE = MEASURED.parents[1] / "capacity.md"
TEMPLATE = Path(__file__).with_name("page.md")
TARGET = 0.7
"""Use of a pool that the chart's scalers aim for."""
SEED = 7
CELL = 2_000


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One scale: clips a minute, the cells that it is divided into, one cell's record, and machines for the whole."""

    rate: float
    cells: int
    scenario: Scenario
    record: Record
    needs: Needs


def main() -> None:
    """Simulate, plot, write."""
    assumed, measured = Assumptions(), load_measured()
    cost = mean_clip(assumed, measured)
    runs = [_run(rate, cost, assumed) for rate in (10.0, 1_000.0, 100_000.0)]
    for run in runs:
        _plot(run, MEASURED.parent / f"clips-{run.rate:.0f}.png")
    PAGE.write_text(_page(cost, assumed, runs, measured), encoding="utf-8")
    print(PAGE)


def _run(rate: float, cost: ClipCost, assumed: Assumptions) -> Run:
    cells = max(1, math.ceil(rate / CELL))
    pool = max(2.0, rate / cells / 60 * cost.cores["gateway"] / TARGET)
    lost = min(0.5, max(assumed.node_cores / pool, 0.01) if pool > assumed.node_cores else 0.5)
    scenario = Scenario(rate / cells, lost_share=lost)
    record = Simulation(scenario, cost, assumed, target=TARGET, seed=SEED).run()
    return Run(rate, cells, scenario, record, needs(rate, cost, assumed, utilisation=TARGET))


def _plot(run: Run, file: Path) -> None:
    """Arrivals, waiting clips, servers and latency along one run."""
    samples = run.record.samples
    minutes = [sample["time"] / 60 for sample in samples]
    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
    axes[0].plot(minutes, [sample["rate"] * 60 for sample in samples], color="black")
    axes[0].set_ylabel("clips a minute")
    axes[0].set_title(f"{run.rate:,.0f} clips a minute" + (f", one of {run.cells} cells" if run.cells > 1 else ""))
    for stage in (*STAGES, NETWORK):
        label = {"triton": "triton (GPUs)", NETWORK: "network (nodes)"}.get(stage, f"{stage} (cores)")
        axes[1].plot(minutes, [sample[f"{stage}_servers"] for sample in samples], label=label)
    axes[1].set_ylabel("servers")
    axes[1].set_yscale("log")
    axes[1].legend(ncols=3, fontsize="small")
    times = np.array([arrival for arrival, _ in run.record.latencies]) / 60
    waits = np.array([seconds for _, seconds in run.record.latencies])
    present = [minute for minute in range(round(run.scenario.seconds / 60)) if np.any(times // 1 == minute)]
    for share, style in ((50, "-"), (99, "--")):
        points = [float(np.percentile(waits[times // 1 == minute], share)) for minute in present]
        axes[2].plot(present, points, style, color="black", label=f"p{share}")
    axes[2].set_ylabel("seconds to the verdict")
    axes[2].set_yscale("log")
    axes[2].set_xlabel("minute of arrival")
    axes[2].legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)
    plt.close(figure)


def _part(run: Run, name: str, begin: float, end: float) -> str:
    waits = [seconds for arrival, seconds in run.record.latencies if begin <= arrival < end]
    refused = sum(begin <= when < end for when in run.record.refused)
    p50, p99 = np.percentile(waits, (50, 99)) if waits else (math.nan, math.nan)
    share = refused / max(refused + len(waits), 1)
    return f"| {run.rate:,.0f} | {name} | {p50:.1f} s | {p99:.1f} s | {share:.1%} |"


def _page(cost: ClipCost, assumed: Assumptions, runs: list[Run], measured: dict[str, Any]) -> str:
    own = sum(seconds for stage, seconds in cost.cores.items() if stage != "triton")
    hops = {
        "gateway → visual": cost.visual_bytes,
        "gateway → audio": cost.audio_bytes,
        "services → Triton": cost.triton_bytes,
    }
    return TEMPLATE.read_text(encoding="utf-8").format(
        stages=" · ".join(f"{stage} {cost.cores[stage]:.2f}" for stage in STAGES if stage != "triton"),
        own=own,
        triton_cores=cost.cores["triton"],
        gpu_milliseconds=cost.gpu * 1000,
        gpu_clips_a_second=TARGET / cost.gpu,
        gpu_clips_a_minute=TARGET / cost.gpu * 60,
        cores_for_a_gpu=own / cost.gpu,
        hops=", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in hops.items()),
        file_megabytes=cost.file_bytes / 1e6,
        network_megabytes=cost.network_bytes / 1e6,
        busy_cores=sum(runs[1].needs.cores.values()) / assumed.node_cores / runs[1].needs.nodes * TARGET,
        node_gigabits=assumed.node_gigabits,
        zone_usd=runs[1].needs.zone_usd_a_thousand,
        machine_usd=runs[1].needs.usd_a_thousand,
        target=TARGET,
        memory=_memory(measured),
        shared_megabytes=measured["triton_shared_memory_bytes"] / 2**20,
        cell=CELL,
        needs="\n".join(_needs_row(run.needs, run.cells) for run in runs),
        parts="\n".join(line for run in runs for line in _parts(run)),
        pictures="\n".join(f"![{run.rate:,.0f} clips a minute](capacity/clips-{run.rate:.0f}.png)" for run in runs),
        node_seconds=assumed.node_seconds,
        gpu_node_seconds=assumed.gpu_node_seconds,
        limits="\n".join(
            f"| {each.clips_a_minute:,.0f} | {each.what} | {each.remedy} |" for each in limits(cost, assumed)
        ),
        assumptions="\n".join(f"| `{name}` | {value} | {meaning} |" for name, value, meaning in assumed.lines()),
    )


def _memory(measured: dict[str, Any]) -> str:
    rows = {
        "idle": measured["idle_bytes"],
        "one clip after another, up to 1080p": measured["clips"]["1080p 10 s"]["peak_bytes"],
        "two 1080p clips at once": measured["peak_bytes_with_two_1080p_clips_at_once"],
    }
    order = ("gateway", "visual", "audio", "fusion", "triton")
    return "\n".join(
        f"| {what} | {' | '.join(f'{sizes[name] / 2**20:,.0f}' for name in order)} |" for what, sizes in rows.items()
    )


def _needs_row(each: Needs, cells: int) -> str:
    cores = " | ".join(f"{each.cores[stage]:,.1f}" for stage in STAGES if stage != "triton")
    return (
        f"| {each.clips_a_minute:,.0f} | {cells} | {cores} | {each.nodes:,.1f} | {each.gpus:,} "
        f"| {each.gigabits:,.1f} Gbit/s "
        f"| {each.usd_an_hour:,.2f} | {each.usd_a_thousand:.2f} |"
    )


def _parts(run: Run) -> list[str]:
    begin, end = run.scenario.burst_seconds
    loss = run.scenario.loss_at
    return [
        _part(run, "steady", 120, begin),
        _part(run, f"burst × {run.scenario.burst:g}", begin, end),
        _part(run, "after the burst", end, loss),
        _part(run, f"{run.scenario.lost_share:.0%} of every pool lost", loss, loss + 300),
    ]


if __name__ == "__main__":
    main()
