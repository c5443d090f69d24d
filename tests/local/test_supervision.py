"""What ends is started again, ever later while it keeps ending, and anew once it has held."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.processes import ManagedProcess
from deploy.local.supervision import LONGEST_PAUSE_SECONDS, STEADY_SECONDS, Supervisor


@dataclass
class Clock:
    """A time that moves when told."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[ManagedProcess]:
    """A process that ends with code 3 as soon as it has run, and notes that it did."""
    note = tmp_path / "runs"
    code = f"open({str(note)!r}, 'a').write('x'); raise SystemExit(3)"
    process = ManagedProcess("brief", [sys.executable, "-c", code], {}, tmp_path / "log")
    yield process
    process.kill()


def next_fall(supervisor: Supervisor, process: ManagedProcess) -> float:
    """Let the process end; the pause that the supervisor then says."""
    assert process.wait(20)
    (line,) = supervisor.tend()
    assert line.startswith("brief ended with code 3")
    assert supervisor.tend() == []  # it waits
    return float(line.split()[-2])


def test_the_pause_doubles_up_to_a_limit(short_lived: ManagedProcess, tmp_path: Path) -> None:
    clock = Clock()
    supervisor = Supervisor({"brief": short_lived}, clock=clock)
    pauses = []
    for _ in range(8):
        pauses.append(next_fall(supervisor, short_lived))
        clock.now += pauses[-1]
        assert supervisor.tend() == ["brief started again"]
    assert all(later == min(2 * sooner, LONGEST_PAUSE_SECONDS) for sooner, later in itertools.pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    assert short_lived.wait(20)
    assert (tmp_path / "runs").read_text() == "x" * 9


def test_what_held_long_enough_is_started_soon_again(short_lived: ManagedProcess) -> None:
    clock = Clock()
    supervisor = Supervisor({"brief": short_lived}, clock=clock)
    first = next_fall(supervisor, short_lived)
    clock.now += first
    supervisor.tend()
    clock.now += STEADY_SECONDS
    assert next_fall(supervisor, short_lived) == first


def test_tidying_comes_before_the_start(short_lived: ManagedProcess, tmp_path: Path) -> None:
    clock, seen = Clock(), []

    def tidy(name: str) -> None:
        seen.append((name, (tmp_path / "runs").read_text()))

    supervisor = Supervisor({"brief": short_lived}, tidy, clock)
    clock.now += next_fall(supervisor, short_lived)
    supervisor.tend()
    assert seen == [("brief", "x")]
