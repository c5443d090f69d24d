"""The phases of a roll-out under a steady load, and what each request saw."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.rollout.load import Load, Reply, failures
from benchmarks.rollout.scene import BAD, GOOD, MODEL, SILENT, SLOW, Scene
from services.common.models import HEADS

LAST = 6
"""So many answers in a row by one version mean that it has taken over."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: how many requests, what failed of them, latencies (seconds), and what there is to say."""

    title: str
    requests: int
    failed: int
    median: float
    slow: float
    """The 95th percentile."""
    says: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Campaign:
    """Carries out the phases on one scene under one load.

    Args:
        scene: started.
        load: under way.
        seconds: of each phase in which nothing is waited for.
        swaps: how often the stable version is exchanged.
    """

    def __init__(self, scene: Scene, load: Load, *, seconds: float, swaps: int) -> None:
        self._scene = scene
        self._load = load
        self._seconds = seconds
        self._swaps = swaps
        self.phases: list[Phase] = []

    def run(self, say: Callable[[str], None]) -> list[Phase]:
        """All phases in order."""
        for phase in (
            self._alone,
            self._shadow,
            self._canary,
            self._exchange,
            self._heads,
            self._upside_down,
            self._silent,
            self._slow,
        ):
            phase()
            say(f"{self.phases[-1]}")
        return self.phases

    def _alone(self) -> None:
        with self._phase("stable version alone") as says:
            time.sleep(self._seconds)
            says.append("")

    def _shadow(self) -> None:
        scene = self._scene
        scene.stage(GOOD)
        with self._phase("shadow, compared on every clip if none is under way") as says:
            scene.step("shadow", MODEL, GOOD)
            time.sleep(self._seconds)
            answered = len(self._replies())
            says.append(f"{scene.comparisons(GOOD):.0f} of {answered} compared; answers by {self._versions()}")

    def _canary(self) -> None:
        with self._phase("canary, half of the clips") as says:
            self._scene.step("canary", MODEL, GOOD, "--share", "0.5")
            time.sleep(self._seconds)
            heard = [reply for reply in self._replies() if reply.on_trial]
            says.append(f"{len(heard)} of {len(self._replies())} answered by {GOOD}")

    def _exchange(self) -> None:
        times: list[float] = []
        with self._phase(f"{self._swaps} exchanges of the stable version") as says:
            for _ in range(self._swaps):
                self._scene.step("promote", MODEL)
                times.append(self._until_only(GOOD))
                self._scene.step("rollback", MODEL)
                times.append(self._until_only("1"))
                self._scene.step("canary", MODEL, GOOD, "--share", "0.5")
            seen = [reply for reply in self._replies() if reply.version(MODEL)]
            mixed = [reply for reply in seen if reply.version("fusion_head") != reply.version(MODEL)]
            says.append(
                f"{2 * self._swaps} times over after {statistics.median(times):.1f} s, at most {max(times):.1f} s;"
                f" {len(mixed)} answers by heads of another version"
            )
        self._scene.step("rollback", MODEL)

    def _heads(self) -> None:
        self._scene.stage_heads("9", self._scene.repository, 0.3)
        with self._phase("canary of the heads alone, half of the clips") as says:
            self._scene.step("canary", HEADS, "9", "--share", "0.5")
            time.sleep(self._seconds)
            self._scene.step("rollback", HEADS)
            heard = [reply for reply in self._replies() if reply.version("fusion_head") == "9"]
            says.append(f"{len(heard)} of {len(self._replies())} answered by heads 9")

    def _upside_down(self) -> None:
        self._taken_back(BAD, "canary of a network that says the opposite", "DISAGREEMENT")

    def _silent(self) -> None:
        self._taken_back(SILENT, "canary of a network that gives no number", "ERRORS")

    def _taken_back(self, version: str, title: str, reason: str) -> None:
        scene = self._scene
        scene.stage(version)
        with self._phase(f"{title}, a tenth of the clips") as says:
            scene.step("canary", MODEL, version, "--share", "0.1", "--minimum", "5")
            seconds = scene.until(
                lambda: scene.metric("visual", "bonafide_rollbacks_total", candidate=version, reason=reason) == 1,
                "it is taken back",
                300,
            )
            heard = [reply for reply in self._replies() if reply.on_trial]
            says.append(f"taken back after {seconds:.0f} s ({reason}), having answered {len(heard)} clips")
        scene.step("rollback", MODEL)

    def _slow(self) -> None:
        scene = self._scene
        scene.stage(SLOW)
        with self._phase("shadow of a network that is never done in time") as says:
            scene.step("shadow", MODEL, SLOW, "--minimum", "5", "--seconds", "0.5")
            seconds = scene.until(
                lambda: scene.metric("visual", "bonafide_rollbacks_total", candidate=SLOW, reason="ERRORS") == 1,
                "it is taken back",
                300,
            )
            says.append(f"taken back after {seconds:.0f} s (ERRORS); answers by {self._versions()}")
        scene.step("rollback", MODEL)

    @contextlib.contextmanager
    def _phase(self, title: str) -> Iterator[list[str]]:
        """A phase; what the block appends is said of it."""
        self._began, says = time.monotonic(), list[str]()
        yield says
        replies = self._replies()
        seconds = sorted(reply.seconds for reply in replies) or [0.0]
        failed = sum(failures(replies).values())
        slow = seconds[min(int(0.95 * len(seconds)), len(seconds) - 1)]
        self.phases.append(
            Phase(title, len(replies), failed, statistics.median(seconds), slow, "; ".join(filter(None, says)))
        )

    def _replies(self) -> list[Reply]:
        return self._load.since(self._began)

    def _versions(self) -> str:
        return " and ".join(sorted(versions(self._replies())))

    def _until_only(self, version: str) -> float:
        def taken_over() -> bool:
            last = self._load.replies[-LAST:]
            return versions(last) == {version} and not any(reply.on_trial for reply in last)

        return self._scene.until(taken_over, f"only {version} answers", 120)


def versions(replies: Sequence[Reply]) -> set[str]:
    """Versions of MODEL that took part."""
    return {reply.version(MODEL) for reply in replies} - {""}
