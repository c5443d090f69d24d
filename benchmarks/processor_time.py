"""Processor time of running processes, from Linux's /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    """User and system time of a process and of all its living descendants, seconds.

    A process that is gone counts nothing; /proc counts in ticks of 10 ms, so measure over many calls.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    children: list[int] = []
    for task in tasks:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # threads come and go
            children += map(int, (task / "children").read_text(encoding="ascii").split())
    own = (int(fields[11]) + int(fields[12])) / _TICKS
    return own + sum(processor_seconds(child) for child in children)


def precise_seconds(pid: int) -> float:
    """The same to the nanosecond, of the threads that live now: for short runs with steady threads."""
    total = 0.0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
            total += sum(
                precise_seconds(int(child)) for child in (task / "children").read_text(encoding="ascii").split()
            )
    except (FileNotFoundError, ProcessLookupError):
        return total
    return total
