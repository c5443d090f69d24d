"""``make swap``: exchange models under load, and write what was measured into docs/rollout.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from benchmarks.rollout.campaign import Campaign, Phase
from benchmarks.rollout.load import Load
from benchmarks.rollout.scene import Scene
from deploy.local.stack import ROOT
from services.common.settings import EngineChoice

PAGE = ROOT / "docs" / "rollout.md"
RECORD = ROOT / "docs" / "rollout" / "measured.json"
HEADING = "## Measured\n"


def main() -> int:
    """Carry out the campaign; 1 when a request failed or Triton is not here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    parser.add_argument("--swaps", type=int, default=5, help="exchanges there and back")
    parser.add_argument("--rate", type=float, default=6.0, help="requests a second")
    parser.add_argument("--record", action="store_true", help="write docs/rollout.md")
    options = parser.parse_args()
    with Scene(ROOT / ".run" / "swap") as scene:
        if scene.stack.engine is not EngineChoice.TRITON:
            print("make swap needs Triton here", file=sys.stderr)
            return 1
        with Load(scene.stack.gateway, rate=options.rate) as load:
            phases = Campaign(scene, load, seconds=options.seconds, swaps=options.swaps).run(print)
    if options.record:
        command = f"python -m benchmarks.rollout --seconds {options.seconds:g} --swaps {options.swaps} --record"
        write(phases, command)
    return 1 if any(phase.failed for phase in phases) else 0


def write(phases: Sequence[Phase], command: str) -> None:
    """Keep the figures, and put them on the page."""
    RECORD.parent.mkdir(exist_ok=True)
    facts = {"command": command, "cores": os.cpu_count(), "phases": [phase.to_dict() for phase in phases]}
    RECORD.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    before = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    PAGE.write_text(before + HEADING + table(phases, command), encoding="utf-8")


def table(phases: Sequence[Phase], command: str) -> str:
    """The figures as Markdown."""
    whole = sum(each.requests for each in phases)
    lines = [
        "",
        f"The real stack with a real Triton on {os.cpu_count()} cores, tiny networks, every request a clip of its own,",
        "none sent twice. A request counts as failed when it gets no verdict, or one that lacks a branch because",
        f"something was out of order. `make swap`, here as `{command}`: {whole} requests.",
        "",
        "| phase | requests | failed | median | 95 % | |",
        "|---|---|---|---|---|---|",
        *map(_row, phases),
        "",
    ]
    return "\n".join(lines)


def _row(phase: Phase) -> str:
    cells = (phase.title, phase.requests, phase.failed, f"{phase.median:.2f} s", f"{phase.slow:.2f} s", phase.says)
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
