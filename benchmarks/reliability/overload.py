"""``make overload``: open-loop load below, at and far beyond what the system can carry.

Capacity is measured first, with a fixed number of requests under way, and the heaviest load is sent once unmeasured.
Then requests leave on schedule at half of capacity, at it, at twice and at ten times, whatever becomes of them. Half
are interactive, a quarter batch, a quarter backfill.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.reliability import watch
from benchmarks.reliability.arena import Arena, ArenaOptions
from benchmarks.reliability.checker import Answer, Ending, Finding
from benchmarks.reliability.report import Record, write_page
from deploy.local.stack import ROOT

DIRECTORY = ROOT / ".run" / "reliability"
LOADS = (0.5, 1.0, 2.0, 10.0)
PRIORITIES = ("interactive", "batch", "interactive", "backfill")
DEADLINE_SECONDS = 10.0
CLOSED_LOOP = 8
"""Requests under way while capacity is measured."""
SETTLE_SECONDS = 5.0
_ANSWERED = frozenset({Ending.RIGHT, Ending.PARTIAL})


class Watcher:
    """Highest memory of some processes while the block runs."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._stop.wait(0.5):
            held = watch.by_name(self._arena.stack.pids).values()
            self.peak_bytes = max(self.peak_bytes, sum(each.resident_bytes for each in held))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each load")
    parser.add_argument("--again", action="store_true", help="forget what was done before")
    options = parser.parse_args()
    record = Record(DIRECTORY / "overload", again=options.again)
    with Progress(console=Console(stderr=True)) as progress, Arena(_setting()) as arena:
        bar = progress.add_task("loads", total=1 + len(LOADS))
        capacity = _capacity(arena, options.seconds)
        # Memory is compared between loads, so it first grows to what the heaviest needs.
        _step(arena, LOADS[-1], capacity, options.seconds)
        time.sleep(SETTLE_SECONDS)
        progress.advance(bar)
        for load in LOADS:
            if f"{load:g}x" not in record.done:
                row, details = _step(arena, load, capacity, options.seconds)
                record.add(f"{load:g}x", row, {"capacity": round(capacity, 2), **details})
                time.sleep(SETTLE_SECONDS)
            progress.advance(bar)
    record.publish("overload", [f"{load:g}x" for load in LOADS])
    write_page()


def _setting() -> ArenaOptions:
    return ArenaOptions(directory=DIRECTORY, gateways=1, links=False)


def _capacity(arena: Arena, seconds: float) -> float:
    """Right answers a second while a fixed number of requests is always under way."""
    plan = replace(arena.plan(1000.0, seconds), count=10**6, evenly=True, most_outstanding=CLOSED_LOOP)
    answers = arena.answers(replace(plan, stop_after=seconds, deadline_seconds=60.0))
    took = max(answer.began + answer.seconds for answer in answers)
    right = sum(finding.ending is Ending.RIGHT for finding in arena.findings(answers))
    return right / took


def _step(arena: Arena, load: float, capacity: float, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    plan = replace(arena.plan(load * capacity, seconds), priorities=PRIORITIES, deadline_seconds=DEADLINE_SECONDS)
    with Watcher(arena) as watcher:
        answers = arena.answers(plan)
    findings = arena.findings(answers)
    row = {
        "load": load,
        "goodput": round(_goodput(findings, seconds), 2),
        "p99_interactive_ms": _p99(answers, findings),
        "rss_mb": round(watcher.peak_bytes / 1e6),
    }
    endings = Counter(finding.ending.value for finding in findings)
    remarks = Counter(finding.remark for finding in findings if finding.remark)
    return row, {"requests": len(answers), "endings": dict(endings), "remarks": dict(remarks)}


def _goodput(findings: Sequence[Finding], seconds: float) -> float:
    """Answers within the deadline, a second of load."""
    return sum(finding.ending in _ANSWERED for finding in findings) / seconds


def _p99(answers: Sequence[Answer], findings: Sequence[Finding]) -> float | None:
    """99th percentile of the time to the analysis, over interactive requests that got one, milliseconds."""
    times = [
        answer.seconds
        for answer, finding in zip(answers, findings, strict=True)
        if finding.ending in _ANSWERED and answer.priority == "interactive"
    ]
    return round(float(np.percentile(times, 99)) * 1000) if times else None


if __name__ == "__main__":
    main()
