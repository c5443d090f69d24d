"""``make fuzz``: generated input against the gateway's own code, watched from a second process.

A worker takes the inputs in turn and notes the number of each before it begins, so that the watcher knows which
one a dead or hanging worker was at; it then starts another worker behind it. ``--show NUMBER`` writes the input of
a number to a file. What was done is kept: the campaign goes on where it was interrupted, ``--again`` starts anew.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from benchmarks.processor_time import processor_seconds
from benchmarks.reliability import watch
from benchmarks.reliability.doors import Doors
from benchmarks.reliability.inputs import Generator
from benchmarks.reliability.reasons import documented_reasons
from benchmarks.reliability.report import publish, publish_details, write_page
from benchmarks.reliability.watch import Holding
from deploy.local.stack import ROOT

DIRECTORY = ROOT / ".run" / "reliability" / "fuzz"
SLICE = 1000
"""Inputs after which the account is written down."""
WARM_INPUTS = 20_000
HANG_SECONDS = 120.0
"""Without a new input for so long of the worker's own processor time or four times as long on the clock: a hang."""
LEAK_BYTES = 64 << 20
"""Growth of resident memory after warm-up that counts as a leak; decoders' arenas settle well below it."""
GUIDED_TIMEOUT = 70
"""How libFuzzer ends when one input takes too long."""
_POLL_SECONDS = 0.2


@dataclass
class Account:
    """What the campaign has seen so far."""

    seed: int
    inputs: int = 0
    crashes: int = 0
    hangs: int = 0
    leaks: int = 0
    guided: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    growth_bytes: int = 0

    @classmethod
    def read(cls, directory: Path, seed: int, *, again: bool) -> Account:
        """The account of before, or a new one."""
        file = directory / "account.json"
        if file.is_file() and not again:
            known = cls(**json.loads(file.read_text(encoding="utf-8")))
            if known.seed == seed:
                return known
        return cls(seed)

    def write(self, directory: Path) -> None:
        """Keep it."""
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / "account.draft"
        draft.write_text(json.dumps(vars(self)), encoding="utf-8")
        draft.replace(directory / "account.json")


def work(place: Any, results: Any, seed: int, first: int, last: int) -> None:  # noqa: ANN401 - shared, and a pipe's end
    """Take the inputs first to last - 1, noting in place which; send a line a slice and one a crash."""
    faulthandler.register(signal.SIGUSR1)  # where it hangs
    generator, doors = Generator(seed), Doors(documented_reasons())
    outcomes: Counter[str] = Counter()
    for number in range(first, last):
        place.value = number
        given = generator.make(number)
        try:
            outcomes[f"{given.kind} {doors.enter(given)}"] += 1
        except Exception:  # noqa: BLE001 - that is what is looked for
            results.send({"crash": number, "trace": traceback.format_exc()})
        if (number + 1) % SLICE == 0 or number + 1 == last:
            gc.collect()  # decoders that wait in reference cycles are no leak
            held = watch.holding(os.getpid())  # here, where no decode is under way
            results.send({"done": number + 1, "outcomes": dict(outcomes), "held": held})
            outcomes.clear()
    doors.close()


class Campaign:
    """Runs workers over the inputs until as many as asked for were taken, or the time is over."""

    def __init__(self, account: Account, directory: Path) -> None:
        self._account = account
        self._directory = directory
        # A fork of a process that has used gRPC may crash when it collects what it was left.
        self._processes = multiprocessing.get_context("spawn")
        self._warm: Holding | None = None

    def run(self, inputs: int, seconds: float) -> None:
        """Go on from the account up to ``inputs``, for at most so long (0: no limit)."""
        ends = time.monotonic() + seconds if seconds else float("inf")
        columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("inputs", total=inputs, completed=self._account.inputs)
            while self._account.inputs < inputs and time.monotonic() < ends:
                self._one_worker(inputs, ends, lambda: progress.update(bar, completed=self._account.inputs))
                self._account.write(self._directory)

    def _one_worker(self, last: int, ends: float, shown: Any) -> None:  # noqa: ANN401
        place, (incoming, outgoing) = self._processes.RawValue("q"), self._processes.Pipe(duplex=False)
        first = place.value = self._account.inputs
        worker = self._processes.Process(
            target=work, args=(place, outgoing, self._account.seed, first, last), daemon=True
        )
        worker.start()
        outgoing.close()
        self._warm = None
        began, latest, since = first, -1, time.monotonic()
        spent = 0.0
        try:
            while True:
                if incoming.poll(_POLL_SECONDS):
                    try:
                        self._note(incoming.recv(), began)
                    except EOFError:
                        break
                    shown()
                    continue
                now = time.monotonic()
                if place.value != latest:
                    latest, since, spent = place.value, now, processor(worker)
                if processor(worker) - spent > HANG_SECONDS or now - since > 4 * HANG_SECONDS:
                    os.kill(worker.pid or 0, signal.SIGUSR1)
                    time.sleep(1.0)
                    self._fault("hang", latest, "")
                    break
                if now > ends:
                    return
            worker.join(10)
            if worker.exitcode is not None and worker.exitcode != 0:
                self._fault("crash", place.value, f"the process ended with code {worker.exitcode}")
        finally:
            worker.kill()
            worker.join()

    def _note(self, line: dict[str, Any], began: int) -> None:
        if "crash" in line:
            self._account.crashes += 1
            self._account.faults.append({"kind": "crash", "number": line["crash"], "trace": line["trace"]})
            return
        self._account.inputs = line["done"]
        for outcome, count in line["outcomes"].items():
            self._account.outcomes[outcome] = self._account.outcomes.get(outcome, 0) + count
        self._account.write(self._directory)
        self._watch(line["held"], line["done"] - began)

    def _watch(self, now: Holding, taken: int) -> None:
        """Compare what the worker holds with what it held when it was warm."""
        if taken < WARM_INPUTS or not now.resident_bytes:
            return
        if self._warm is None:
            self._warm = now
            return
        growth = now.resident_bytes - self._warm.resident_bytes
        self._account.growth_bytes = max(self._account.growth_bytes, growth)
        if growth > LEAK_BYTES or now.descriptors > self._warm.descriptors or now.threads > self._warm.threads:
            self._account.leaks += 1
            self._account.faults.append(
                {"kind": "leak", "number": self._account.inputs, "trace": f"{self._warm} {now}"}
            )
            self._warm = now

    def _fault(self, kind: str, number: int, trace: str) -> None:
        if kind == "hang":
            self._account.hangs += 1
        else:
            self._account.crashes += 1
        self._account.faults.append({"kind": kind, "number": number, "trace": trace})
        self._account.inputs = number + 1


def run_guided(account: Account, runs: int, directory: Path) -> None:
    """Let coverage guide ``runs`` more inputs, in a process of their own (``guided.py``)."""
    command = [sys.executable, "-m", "benchmarks.reliability.guided", "--runs", str(runs)]
    done = subprocess.run(  # noqa: S603 - ourselves
        [*command, "--corpus", str(directory / "corpus")], check=False, capture_output=True, text=True
    )
    account.guided += runs
    if done.returncode == GUIDED_TIMEOUT:
        account.hangs += 1
    elif done.returncode:
        account.crashes += 1
    if done.returncode:
        account.faults.append({"kind": "guided", "number": done.returncode, "trace": done.stderr[-4000:]})
    account.write(directory)


def processor(worker: BaseProcess) -> float:
    """Processor seconds that a worker has used."""
    return processor_seconds(worker.pid or 0)


def main() -> None:
    """Run the campaign and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=0.0, help="at most so long; 0 for no limit")
    parser.add_argument("--guided", type=int, default=20_000, help="of them guided by coverage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="forget what was done before")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="write the input of a number to ./input-N-*.bin")
    options = parser.parse_args()
    if options.show is not None:
        for index, message in enumerate(Generator(options.seed).make(options.show).messages):
            Path(f"input-{options.show}-{index}.bin").write_bytes(message)
        return
    account = Account.read(DIRECTORY, options.seed, again=options.again)
    Campaign(account, DIRECTORY).run(options.inputs - options.guided, options.seconds)
    if account.guided < options.guided and not options.seconds:
        run_guided(account, options.guided - account.guided, DIRECTORY)
    figures = {"inputs": account.inputs + account.guided}
    figures |= {name: getattr(account, name) for name in ("crashes", "hangs", "leaks")}
    publish("fuzz", figures)
    publish_details(
        "fuzz",
        {
            "seed": account.seed,
            "guided": account.guided,
            "growth_mb": round(account.growth_bytes / 1e6, 1),
            "outcomes": account.outcomes,
        },
    )
    write_page()
    print(json.dumps(figures))
    for fault in account.faults:
        print(fault["kind"], fault["number"], fault["trace"])
    if account.crashes or account.hangs or account.leaks:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
