"""``make faults``: one fault after another under a steady load, and an account of every request.

Each fault is tried on the same running system, which must answer everything right again before the next. What was
done is kept, so that a campaign that was interrupted goes on where it was; ``--again`` forgets it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.reliability import sandbox
from benchmarks.reliability.arena import Arena, ArenaOptions, CampaignError
from benchmarks.reliability.checker import tally
from benchmarks.reliability.injections import Fault, chosen, clock_environment, faults, spool_directory
from benchmarks.reliability.report import Record, write_page
from deploy.local.stack import ROOT

DIRECTORY = ROOT / ".run" / "reliability"
LEAD_SECONDS = 3.0
RECOVERY_SECONDS = 60.0
ATTEMPTS = 4
DEADLINE_SECONDS = 20.0
SPOOL_MEMORY_BYTES = 4096
PLAIN = "plain"
SETTINGS = (PLAIN, "certificates", "faketime")
"""Systems that are set up differently, for faults that need it."""


def main() -> None:
    """Try the faults and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the load around each fault")
    parser.add_argument("--rate", type=float, default=3.0, help="requests a second, on average")
    parser.add_argument("--only", nargs="*", default=[], metavar="FAULT", help="only these")
    parser.add_argument("--again", action="store_true", help="forget what was done before")
    options = parser.parse_args()
    inside = sandbox.enter("benchmarks.reliability.faults")
    record = Record(DIRECTORY / "faults", again=options.again)
    available = frozenset({"sandbox"} if inside else set()) | set(SETTINGS)
    wanted = [fault for fault in chosen(options.only, available) if fault.name not in record.done]
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("faults", total=len(wanted))
        for setting in SETTINGS:
            group = [fault for fault in wanted if _setting_of(fault) == setting]
            _try_all(group, record, options, lambda: progress.advance(bar), setting)
    record.publish("faults", [fault.name for fault in faults()])
    write_page()


def _try_all(
    group: Sequence[Fault],
    record: Record,
    options: argparse.Namespace,
    done: Callable[[], None],
    setting: str,
) -> None:
    left = list(group)
    while left:
        with Arena(_options(setting)) as arena:
            while left:
                fault = left.pop(0)
                row, details = try_fault(arena, fault, options.rate, options.seconds)
                record.add(fault.name, {"fault": fault.name, **row}, details)
                done()
                if details["recovered_seconds"] is None:
                    break  # the next fault deserves a whole system


def _setting_of(fault: Fault) -> str:
    return fault.needs if fault.needs in SETTINGS else PLAIN


def _options(setting: str) -> ArenaOptions:
    spool = spool_directory(DIRECTORY)
    spool.mkdir(parents=True, exist_ok=True)
    if not spool.is_mount():
        sandbox.mount_small(spool, sandbox.SPOOL_MEGABYTES)
    gateway = {"TMPDIR": str(spool), "BONAFIDE_GATEWAY_SPOOL_MEMORY_BYTES": str(SPOOL_MEMORY_BYTES)}
    return ArenaOptions(
        directory=DIRECTORY,
        environment=clock_environment(DIRECTORY) if setting == "faketime" else {},
        certificates=setting == "certificates",
        own_environment={"gateway": gateway, "gateway-2": gateway},
    )


def try_fault(arena: Arena, fault: Fault, rate: float, seconds: float) -> tuple[dict[str, int], dict[str, Any]]:
    """Do one fault to a system under load; the counts, and what else was seen."""
    said = len(arena.said)
    plan = replace(arena.plan(rate, seconds), attempts=ATTEMPTS, deadline_seconds=DEADLINE_SECONDS)
    with arena.load(plan) as answers:
        time.sleep(LEAD_SECONDS)
        ends = time.monotonic() + fault.hold_seconds
        fault.begin(arena)
        while fault.repeat_seconds and time.monotonic() < ends:
            time.sleep(fault.repeat_seconds)
            fault.begin(arena)
        time.sleep(max(ends - time.monotonic(), 0))
        fault.end(arena)
    recovered = arena.recovers(RECOVERY_SECONDS)
    counts = tally(arena.findings(answers))
    details = {
        "recovered_seconds": None if recovered is None else round(recovered, 1),
        "remarks": {f"{ending.value}: {remark}": count for (ending, remark), count in counts.remarks.items()},
        "supervisor": arena.said[said:],
    }
    return counts.to_dict(), details


if __name__ == "__main__":
    try:
        main()
    except CampaignError as error:
        raise SystemExit(str(error)) from error
