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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks.reliability import sandbox, watch
from benchmarks.reliability.arena import Arena, ArenaOptions, CampaignError
from benchmarks.reliability.report import publish, publish_details, write_page
from benchmarks.reliability.watch import Holding
from deploy.local.stack import GATEWAY, ROOT

DIRECTORY = ROOT / ".run" / "reliability" / "soak"
PRIORITIES = ("interactive", "batch", "interactive", "backfill")
SLICE = 500
WARM_ANALYSES = 1000
"""After so many the system counts as warm."""
UNDER_WAY = 6
WARMING_UNDER_WAY = 24
"""More at one time until then, so that every pool of threads reaches its bound."""
SETTLE_SECONDS = 3.0
DEADLINE_SECONDS = 120.0


def main() -> None:
    """Run the soak and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="analyses")
    parser.add_argument("--seconds", type=float, default=0.0, help="at most about so long; 0 for no limit")
    parser.add_argument("--turns", type=Path, help="send a slice only while this file is locked")
    options = parser.parse_args()
    sandbox.enter("benchmarks.reliability.soak")
    before = watch.shared_memory_files("bonafide-")
    ends = time.monotonic() + options.seconds if options.seconds else float("inf")
    figures: dict[str, Any] = {}
    details: dict[str, Any] = {}
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, contextlib.suppress(KeyboardInterrupt):
        bar = progress.add_task("analyses", total=options.count)
        with Arena(_options()) as arena:
            for known in _soak(arena, options.count, options.turns):
                figures, details = known
                progress.update(bar, completed=figures["analyses"])
                if time.monotonic() > ends:
                    break
    if not figures:
        raise CampaignError(f"the soak ended before it was warm ({WARM_ANALYSES} analyses)")
    figures["leaked_shm"] += len(watch.shared_memory_files("bonafide-") - before)
    publish("soak", figures)
    publish_details("soak", details)
    write_page()
    print(json.dumps(figures))


def _options() -> ArenaOptions:
    # What is remembered on purpose is bounded; with small bounds it is full before the system counts as warm.
    memory = {"BONAFIDE_GATEWAY_ANSWERS_BYTES": str(1 << 20), "BONAFIDE_GATEWAY_REQUEST_IDS": "500"}
    return ArenaOptions(directory=DIRECTORY, gateways=1, links=False, own_environment={GATEWAY: memory})


def _soak(arena: Arena, count: int, turns: Path | None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Send slice after slice; answers after each, once warm, the figures so far and what else is to be told."""
    endings: Counter[str] = Counter()
    history: list[dict[str, Any]] = []
    warm: Mapping[str, Holding] = {}
    resident: list[int] = []
    shared: set[str] = set()
    done, seconds = 0, 0.0
    while done < count:
        size = min(SLICE, count - done)
        with _turn(turns):
            began = time.monotonic()
            under_way = UNDER_WAY if done >= WARM_ANALYSES else WARMING_UNDER_WAY
            findings = arena.findings(arena.answers(_plan(arena, size, under_way)))
            seconds += time.monotonic() - began
        done += size
        endings.update(f"{finding.ending.value} {finding.remark}".strip() for finding in findings)
        time.sleep(SETTLE_SECONDS)
        held = watch.by_name(arena.stack.pids)
        history.append({"analyses": done, **{name: asdict(each) for name, each in held.items()}})
        (DIRECTORY / "history.json").write_text(json.dumps(history), encoding="utf-8")
        if done < WARM_ANALYSES:
            continue
        if not warm:
            warm, shared = held, watch.shared_memory_files("bonafide-")
        resident.append(sum(each.resident_bytes for each in held.values()))
        figures = {"analyses": done, "rss_growth_percent": growth_percent(resident)}
        figures["leaked_shm"] = len(watch.shared_memory_files("bonafide-") - shared)
        yield figures | _counts(warm, held), _details(endings, seconds, warm, held)


def _details(
    endings: Mapping[str, int], seconds: float, warm: Mapping[str, Holding], now: Mapping[str, Holding]
) -> dict[str, Any]:
    """How the analyses ended, how long they took, and resident megabytes by process, warm and now."""
    megabytes = {
        name: [round(each.resident_bytes / 1e6), round(now[name].resident_bytes / 1e6)] for name, each in warm.items()
    }
    return {"endings": dict(endings), "minutes": round(seconds / 60, 1), "resident_mb": megabytes}


def _plan(arena: Arena, size: int, under_way: int) -> Any:  # noqa: ANN401 - a LoadPlan
    plan = replace(arena.plan(1000.0, 0.0), count=size, evenly=True, most_outstanding=under_way)
    return replace(plan, priorities=PRIORITIES, deadline_seconds=DEADLINE_SECONDS, attempts=5)


def growth_percent(resident: Sequence[int]) -> float:
    """Growth of resident memory from the first to the last third of what was seen, between their medians, percent.

    One look says little: memory moves by tens of megabytes with what was decoded last.
    """
    third = max(len(resident) // 3, 1)
    first, last = median(resident[:third]), median(resident[-third:])
    return round(100 * (last - first) / first, 2)


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
    try:
        main()
    except CampaignError as error:
        raise SystemExit(str(error)) from error
