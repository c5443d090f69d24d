"""Looks at the stack from outside: memory and file descriptors of its processes, from /proc."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")


def peak_bytes(pid: int) -> int:
    """Highest resident memory that one process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")


def open_files(pid: int) -> int:
    """File descriptors that one process holds."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class Baseline:
    """What the processes held when it was made, to be compared with later."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._files = {name: open_files(pid) for name, pid in self._pids.items()}
        self._peaks = {name: peak_bytes(pid) for name, pid in self._pids.items()}

    def files_grown(self) -> dict[str, int]:
        """Descriptors gained since, by process, where there are more."""
        grown = {name: open_files(pid) - self._files[name] for name, pid in self._pids.items()}
        return {name: more for name, more in grown.items() if more > 0}

    def peak_growth(self, name: str) -> int:
        """Bytes by which a process's highest memory has risen since."""
        return peak_bytes(self._pids[name]) - self._peaks[name]
