"""``make soak``: thousands of mixed analyses on one running system, and what it holds before and after.

The load comes in slices; after each, what the processes hold is written down. With ``--turns FILE`` a slice is sent
only while that file is locked, so that campaigns on one machine take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks.reliability import sandbox, watch
from benchmarks.reliability.arena import Arena, ArenaOptions
from benchmarks.reliability.report import publish, publish_details, write_page
from benchmarks.reliability.watch import Holding
from deploy.local.stack import GATEWAY, ROOT

DIRECTORY = ROOT / ".run" / "reliability" / "soak"
PRIORITIES = ("interactive", "batch", "interactive", "backfill")
SLICE = 500
WARM_SHARE = 0.15
"""Share of the analyses after which the system counts as warm."""
UNDER_WAY = 6
SETTLE_SECONDS = 3.0
DEADLINE_SECONDS = 120.0


def main() -> None:
    """Run the soak and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="analyses")
    parser.add_argument("--turns", type=Path, help="send a slice only while this file is locked")
    options = parser.parse_args()
    sandbox.enter("benchmarks.reliability.soak")
    before = watch.shared_memory_files("bonafide-")
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        with Arena(_options()) as arena:
            figures, details = _soak(arena, options.count, options.turns, progress)
        figures["leaked_shm"] += len(watch.shared_memory_files("bonafide-") - before)
    publish("soak", figures)
    publish_details("soak", details)
    write_page()
    print(json.dumps(figures))


def _options() -> ArenaOptions:
    # What is remembered on purpose is bounded; with small bounds it is full before the system counts as warm.
    memory = {"BONAFIDE_GATEWAY_ANSWERS_BYTES": str(1 << 20), "BONAFIDE_GATEWAY_REQUEST_IDS": "500"}
    return ArenaOptions(directory=DIRECTORY, gateways=1, links=False, own_environment={GATEWAY: memory})


def _soak(arena: Arena, count: int, turns: Path | None, progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    bar = progress.add_task("analyses", total=count)
    endings: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    history: list[dict[str, Any]] = []
    warm: Mapping[str, Holding] = {}
    shared: set[str] = set()
    done, began = 0, time.monotonic()
    while done < count:
        size = min(SLICE, count - done)
        with _turn(turns):
            findings = arena.findings(arena.answers(_plan(arena, size)))
        done += size
        endings.update(finding.ending.value for finding in findings)
        remarks.update(finding.remark for finding in findings if finding.remark)
        time.sleep(SETTLE_SECONDS)
        held = watch.by_name(arena.stack.pids)
        history.append({"analyses": done, **{name: asdict(each) for name, each in held.items()}})
        (DIRECTORY / "history.json").write_text(json.dumps(history), encoding="utf-8")
        if not warm and done >= WARM_SHARE * count:
            warm, shared = held, watch.shared_memory_files("bonafide-")
        progress.update(bar, completed=done)
    seconds = time.monotonic() - began
    gained = watch.shared_memory_files("bonafide-") - shared
    details = {
        "endings": dict(endings),
        "remarks": dict(remarks),
        "minutes": round(seconds / 60, 1),
        "resident_mb": {
            name: [round(each.resident_bytes / 1e6), round(held[name].resident_bytes / 1e6)]
            for name, each in warm.items()
        },
    }
    return {"analyses": done, **_growth(warm, held), "leaked_shm": len(gained)} | _counts(warm, held), details


def _plan(arena: Arena, size: int) -> Any:  # noqa: ANN401 - a LoadPlan
    plan = replace(arena.plan(1000.0, 0.0), count=size, evenly=True, most_outstanding=UNDER_WAY)
    return replace(plan, priorities=PRIORITIES, deadline_seconds=DEADLINE_SECONDS, attempts=5)


def _growth(warm: Mapping[str, Holding], now: Mapping[str, Holding]) -> dict[str, float]:
    """Growth of the resident memory of all processes together, percent."""
    first, last = (sum(each.resident_bytes for each in held.values()) for held in (warm, now))
    return {"rss_growth_percent": round(100 * (last - first) / first, 2)}


def _counts(warm: Mapping[str, Holding], now: Mapping[str, Holding]) -> dict[str, int]:
    """Descriptors and threads gained, over the processes that gained any."""
    return {
        "leaked_fds": sum(max(now[name].descriptors - warm[name].descriptors, 0) for name in warm),
        "leaked_threads": sum(max(now[name].threads - warm[name].threads, 0) for name in warm),
    }


@contextlib.contextmanager
def _turn(file: Path | None) -> Iterator[None]:
    """Hold a lock within the block, if there is one to hold."""
    if file is None:
        yield
        return
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
