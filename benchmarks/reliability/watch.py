"""What the processes hold, from /proc: memory, descriptors, threads, shared memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory


@dataclass(frozen=True, slots=True)
class Holding:
    """What some processes hold together: resident bytes, descriptors, threads."""

    resident_bytes: int = 0
    descriptors: int = 0
    threads: int = 0

    def __add__(self, other: Holding) -> Holding:
        return Holding(
            self.resident_bytes + other.resident_bytes,
            self.descriptors + other.descriptors,
            self.threads + other.threads,
        )


def descendants(pid: int) -> Iterator[int]:
    """Living children of a process, their children, and so on."""
    with contextlib.suppress(*_GONE):
        for task in list(Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(*_GONE):  # threads come and go
                for child in (task / "children").read_text(encoding="ascii").split():
                    yield int(child)
                    yield from descendants(int(child))


def holding(pid: int) -> Holding:
    """What one process holds; nothing when it is gone."""
    try:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        )
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except _GONE:
        return Holding()
    return Holding(int(status.get("VmRSS", "0 kB").split()[0]) * 1024, descriptors, int(status["Threads"]))


def family_holding(pid: int) -> Holding:
    """What a process and all its descendants hold."""
    return sum((holding(child) for child in descendants(pid)), holding(pid))


def by_name(pids: Mapping[str, int]) -> dict[str, Holding]:
    """What each named process and its descendants hold."""
    return {name: family_holding(pid) for name, pid in pids.items()}


def command_line(pid: int) -> str:
    """The words a process was started with, blank-separated; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except _GONE:
        return ""


def shared_memory_files(prefix: str = "") -> set[str]:
    """Names of the shared-memory files that begin with a prefix."""
    return {file.name for file in SHARED_MEMORY.glob(f"{prefix}*")}
