"""The system under test: real processes over tiny graphs, two gateways, supervised, every link cuttable."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.progress import Progress

from benchmarks.reliability import watch
from benchmarks.reliability.certificates import HopCertificates
from benchmarks.reliability.checker import Answer, Checker, Ending, Finding
from benchmarks.reliability.links import Link
from benchmarks.reliability.load import LoadGenerator, LoadPlan, read_reply
from benchmarks.reliability.reasons import documented_reasons
from benchmarks.reliability.samples import make_samples, write_samples
from benchmarks.reliability.tiny_models import write_heads, write_repository
from deploy.local.stack import GATEWAY, ROOT, Stack, StackOptions
from deploy.topology import TRITON
from services.fusion.store import SHIPPED_HEADS

_TEND_SECONDS = 0.2
_QUIET_ROUNDS = 2


class CampaignError(Exception):
    """A campaign cannot go on; the sentence says why."""


@dataclass(frozen=True, slots=True)
class ArenaOptions:
    """How the system under test is set up; ``own_environment`` is by process name.

    ``links`` puts proxies before the gateways and before visual; ``certificates`` gives every hop behind the
    gateways mTLS.
    """

    directory: Path = ROOT / ".run" / "reliability"
    gateways: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)
    own_environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    links: bool = True
    certificates: bool = False
    metadata: Sequence[tuple[str, str]] = ()


class Arena:
    """Starts the stack and keeps it up, runs loads against it, and knows the quiet answers; a context manager."""

    def __init__(self, options: ArenaOptions) -> None:
        self._options = options
        self.directory = options.directory
        self.repository = options.directory / "models"
        self._exits = contextlib.ExitStack()
        self._stopped = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self.said: list[str] = []
        self.client_links: list[Link] = []
        self.visual_link: Link | None = None
        self.certificates: HopCertificates | None = None
        self.quiet: dict[str, Answer] = {}
        self._loads = 0
        self.stack = Stack(StackOptions(), say=self._say)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            stand_ins = write_repository(self.repository, ROOT / "model_repository")
            heads = write_heads(self.directory / "heads", SHIPPED_HEADS, stand_ins)
            self.samples = make_samples()
            write_samples(self.samples, self.directory / "samples")
            own = {name: dict(values) for name, values in self._options.own_environment.items()}
            own.setdefault("fusion", {})["BONAFIDE_FUSION_HEADS"] = str(heads)
            if self._options.certificates:
                self.certificates = HopCertificates(self.directory / "certificates")
                for name, values in self.certificates.environment(self._gateways()).items():
                    own[name] = own.get(name, {}) | values
            if self._options.links:
                self.visual_link = exits.enter_context(Link(lambda: self.stack.addresses["visual"]))
                for name in self._gateways():
                    own.setdefault(name, {})["BONAFIDE_GATEWAY_VISUAL_ADDRESS"] = self.visual_link.address
            options = StackOptions(
                gateways=self._options.gateways,
                repository=self.repository,
                run_directory=self.directory,
                environment={"PYTHONPATH": str(ROOT), **self._options.environment},  # the code of this checkout
                own_environment=own,
                start_seconds=180,
                patience_seconds=60,
            )
            self.stack = exits.enter_context(Stack(options, say=self._say))
            self._keeper.start()
            exits.callback(self._stop_keeping)
            if self._options.links:
                self.client_links = [exits.enter_context(self._client_link(name)) for name in self._gateways()]
            self.quiet = self._quiet_answers()
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    @property
    def targets(self) -> list[str]:
        """HOST:PORT of the gateways, as clients reach them."""
        if self.client_links:
            return [link.address for link in self.client_links]
        return [self.stack.addresses[name] for name in self._gateways()]

    def checker(self) -> Checker:
        """The judge by this arena's quiet answers."""
        return Checker(self.quiet, documented_reasons())

    def plan(self, rate: float, seconds: float) -> LoadPlan:
        """A load on this arena."""
        samples = str(self.directory / "samples")
        return LoadPlan(self.targets, samples, rate, seconds, metadata=self._options.metadata)

    @contextlib.contextmanager
    def load(self, plan: LoadPlan) -> Iterator[list[Answer]]:
        """A load under way within the block; the list is filled when the block ends, once every request has."""
        self._loads += 1
        files = [self.directory / f"{name}-{self._loads}.json" for name in ("plan", "answers")]
        files[0].write_text(replace(plan, seed=plan.seed or self._loads).to_json(), encoding="utf-8")
        answers: list[Answer] = []
        command = [sys.executable, "-m", "benchmarks.reliability.load", *map(str, files)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - ourselves
            try:
                assert process.stdout is not None
                if process.stdout.readline() != "started\n":
                    raise CampaignError("the load generator did not start")
                yield answers
                process.wait(plan.count / max(plan.rate, 0.1) + plan.seconds + plan.deadline_seconds + 1800)
            finally:
                process.kill()
        if process.returncode:
            raise CampaignError("the load generator failed")
        lines = files[1].read_text(encoding="utf-8").splitlines()
        answers += [Answer.from_dict(json.loads(line)) for line in lines]
        for file in files:
            file.unlink()

    def answers(self, plan: LoadPlan) -> list[Answer]:
        """Carry out a load and wait for it."""
        with self.load(plan) as answers:
            pass
        return answers

    def in_turn(self, rounds: int = 1, *, targets: Sequence[str] = (), apart: bool = False) -> list[Answer]:
        """Every sample so many times, one request at a time; ``apart`` from a process whose connections end with it."""
        count = rounds * len(self.samples)
        plan = replace(self.plan(1000.0, 0.0), count=count, evenly=True, most_outstanding=1, deadline_seconds=60.0)
        self._loads += 1  # another seed: no two requests of an arena are alike
        plan = replace(plan, targets=targets or plan.targets, seed=self._loads)
        if apart:
            return self.answers(plan)
        return [
            read_reply(reply) for reply in asyncio.run(LoadGenerator(plan, self.samples).run(Progress(disable=True)))
        ]

    def recovers(self, seconds: float) -> float | None:
        """Seconds until every sample is answered right again by every gateway; None when that takes too long."""
        began, judge = time.monotonic(), self.checker().judge
        while time.monotonic() - began < seconds:
            whole = all(
                finding.ending is Ending.RIGHT
                for target in self.targets
                for finding in map(judge, self.in_turn(targets=[target]))
            )
            if whole:
                return time.monotonic() - began
            time.sleep(0.5)
        return None

    def findings(self, answers: Sequence[Answer]) -> list[Finding]:
        """How each request of a load ended."""
        judge = self.checker().judge
        return [judge(answer) for answer in answers]

    def stub(self, model: str) -> int:
        """Process id of the Triton process that runs a model."""
        for pid in watch.descendants(self.stack.pids[TRITON]):
            if f"/{model}/" in watch.command_line(pid) or f"{model}_0" in watch.command_line(pid):
                return pid
        raise CampaignError(f"no process runs the model {model}")

    def _quiet_answers(self) -> dict[str, Answer]:
        self.in_turn()  # the first of each kind warms allocators and graphs
        quiet: dict[str, Answer] = {}
        for answer in self.in_turn(_QUIET_ROUNDS):
            if not answer.verdict:
                raise CampaignError(f"{answer.sample}: {answer.code} {answer.reason} from the quiet system")
            known = quiet.setdefault(answer.sample, answer)
            if Checker({answer.sample: known}, frozenset()).judge(answer).ending is not Ending.RIGHT:
                raise CampaignError(f"{answer.sample}: the quiet system does not repeat itself")
        return quiet

    def _gateways(self) -> list[str]:
        return [GATEWAY, *(f"{GATEWAY}-{number}" for number in range(2, self._options.gateways + 1))]

    def _client_link(self, name: str) -> Link:
        return Link(lambda: self.stack.addresses[name])

    def _keep(self) -> None:
        while not self._stopped.wait(_TEND_SECONDS):
            for line in self.stack.tend():
                self._say(line)

    def _stop_keeping(self) -> None:
        self._stopped.set()
        self._keeper.join(30)

    def _say(self, line: str) -> None:
        self.said.append(line)
