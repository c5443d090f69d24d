"""Looks at the stack from outside: memory and file descriptors of its processes, from /proc."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_PATIENCE_SECONDS, _LOOK_SECONDS = 15.0, 0.1


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
    """File descriptors that one process holds, but for connections, which are replaced as they age."""
    held = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held += not str(descriptor.readlink()).startswith("socket:")
    return held


class Baseline:
    """What the processes held when it was made, to be compared with later."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._files = {name: open_files(pid) for name, pid in self._pids.items()}
        self._peaks = {name: peak_bytes(pid) for name, pid in self._pids.items()}

    def files_grown(self) -> dict[str, int]:
        """Descriptors gained since and not given back in seconds, by process."""
        grown = dict.fromkeys(self._pids, 1)
        ends = time.monotonic() + _PATIENCE_SECONDS
        while grown and time.monotonic() < ends:
            now = {name: open_files(self._pids[name]) - self._files[name] for name in grown}
            grown = {name: more for name, more in now.items() if more > 0}
            time.sleep(_LOOK_SECONDS if grown else 0)
        return grown

    def peak_growth(self, name: str) -> int:
        """Bytes by which a process's highest memory has risen since."""
        return peak_bytes(self._pids[name]) - self._peaks[name]
