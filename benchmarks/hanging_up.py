"""What the stack still does after a caller has hung up on a long clip: processor time, and how soon it is idle.

``python -m benchmarks.hanging_up --page docs/hanging-up.md`` measures on the machine it runs on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from benchmarks.clips import ClipClass, make_clip
from benchmarks.processor_time import processor_seconds
from bonafide.v1 import analysis_pb2, analysis_pb2_grpc
from deploy.local.stack import Stack, StackOptions

KIND = ClipClass("360p 5 minutes", 640, 360, 300)
STAGES = {"decoding": analysis_pb2.STAGE_DECODING, "analysing": analysis_pb2.STAGE_ANALYZING}
CHUNK_BYTES = 1 << 18
INTO_STAGE_SECONDS = 0.5
STEP_SECONDS = 0.1
IDLE_SHARE = 0.3
"""Processors in use, above those of the idle stack, below which it counts as idle again."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """What was still done after one: processor seconds, and wall seconds until the stack was idle."""

    stage: str
    processor_seconds: float
    idle_after_seconds: float


class Watcher:
    """Looks at the processor time of all processes of a stack, Triton's models among them."""

    def __init__(self, stack: Stack) -> None:
        self._pids = tuple(stack.pids.values())
        time.sleep(2.0)
        before = self.used()
        time.sleep(5.0)
        self.idle_rate = (self.used() - before) / 5.0

    def used(self) -> float:
        """Processor seconds so far."""
        return sum(processor_seconds(pid) for pid in self._pids)

    def settle(self) -> tuple[float, float]:
        """Wait until the stack is idle; answers processor and wall seconds from now until the last busy step."""
        began, used = time.monotonic(), self.used()
        last_busy, used_then, quiet = began, used, 0
        while quiet < 10:
            before, at = self.used(), time.monotonic()
            time.sleep(STEP_SECONDS)
            after, now = self.used(), time.monotonic()
            busy = (after - before) / (now - at) - self.idle_rate > IDLE_SHARE
            quiet = 0 if busy else quiet + 1
            if busy:
                last_busy, used_then = now, after
        return used_then - used, last_busy - began


def main() -> None:
    """Measure and print, or write a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="Markdown file to write")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        make_clip(KIND, path)
        data = path.read_bytes()
    environment = {"BONAFIDE_GATEWAY_ANSWERS_BYTES": "0"}
    run = Path(".run") / "hanging-up"
    with Stack(StackOptions(run_directory=run, environment=environment), say=lambda _: None) as stack:
        with grpc.insecure_channel(stack.gateway, options=[("grpc.enable_http_proxy", 0)]) as channel:
            analyses = analysis_pb2_grpc.AnalysisServiceStub(channel)
            watcher = Watcher(stack)
            whole = _whole(analyses, data, watcher)
            found = [_hang_up(analyses, data, watcher, stage) for stage in STAGES for _ in range(options.rounds)]
        page = _page(whole, found, stack.engine.value)
    if options.page is None:
        print(page)
    else:
        options.page.write_text(page, encoding="utf-8")


def _whole(analyses: analysis_pb2_grpc.AnalysisServiceStub, data: bytes, watcher: Watcher) -> float:
    """Processor seconds of the analysis when nobody hangs up."""
    before = watcher.used()
    for _ in analyses.Analyze(_upload(data), timeout=300):
        pass
    return watcher.used() - before


def _hang_up(analyses: analysis_pb2_grpc.AnalysisServiceStub, data: bytes, watcher: Watcher, stage: str) -> HangUp:
    watcher.settle()
    call = analyses.Analyze(_upload(data), timeout=300)
    for event in call:
        if event.progress.stage == STAGES[stage]:
            break
    time.sleep(INTO_STAGE_SECONDS)
    call.cancel()
    return HangUp(stage, *watcher.settle())


def _upload(data: bytes) -> Iterator[analysis_pb2.AnalyzeRequest]:
    yield analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(size_bytes=len(data)))
    for start in range(0, len(data), CHUNK_BYTES):
        yield analysis_pb2.AnalyzeRequest(chunk=data[start : start + CHUNK_BYTES])


def _page(whole: float, found: list[HangUp], engine: str) -> str:
    load = f"{os.getloadavg()[2]:.1f} on {os.cpu_count()} processors"
    lines = [
        "# Hanging up",
        "",
        f"A caller sends a clip ({KIND.name}, {engine} engine), lets a stage run for {INTO_STAGE_SECONDS} s,",
        "and cancels. Written by `make hanging-up PAGE=docs/hanging-up.md`; all processes of the stack count, Triton's",
        f"models among them. Left alone, the analysis takes {whole:.1f} s of processor time. Load average of the",
        f"machine meanwhile, this measurement among it: {load}; what others do makes the wall time longer, not the",
        "processor time.",
        "",
        "| hung up while | processor time after that, s | idle after, s |",
        "|---|---|---|",
    ]
    lines += [f"| {one.stage} | {one.processor_seconds:.2f} | {one.idle_after_seconds:.2f} |" for one in found]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
