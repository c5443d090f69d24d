"""Namespaces of our own, so that a full disk, a full /dev/shm and a slow network hurt nobody else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_MARK = "BONAFIDE_CAMPAIGN_SANDBOX"
SHARED_MEMORY_MEGABYTES = 256
SPOOL_MEGABYTES = 8
FAST_RATE, SLOW_RATE = "1gbit", "100mbit"
"""Speed of the loopback in the sandbox, and ten times slower."""


def enter(module: str) -> bool:
    """Run this program again inside mount and network namespaces of its own; False where that is not permitted.

    Inside, the loopback carries FAST_RATE and /dev/shm is a small file system of our own.

    Args:
        module: what ``python -m`` is to run there, with the arguments of this process.
    """
    if os.environ.get(_MARK):
        _prepare()
        return True
    unshare = shutil.which("unshare")
    if unshare is None or _fails([unshare, "--mount", "--net", "true"]):
        return False
    command = [unshare, "--mount", "--net", sys.executable, "-m", module, *sys.argv[1:]]
    os.execve(unshare, command, {**os.environ, _MARK: "1"})  # noqa: S606 - ourselves
    raise AssertionError("execve returned")


def mount_small(directory: Path, megabytes: int) -> None:
    """A file system of its own, in memory, at a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory))


def set_rate(rate: str) -> None:
    """Limit what the loopback carries."""
    _run("tc", "qdisc", "replace", "dev", "lo", "root", "tbf", "rate", rate, "burst", "512kb", "latency", "400ms")


def _prepare() -> None:
    _run("ip", "link", "set", "lo", "up")
    set_rate(FAST_RATE)
    mount_small(Path("/dev/shm"), SHARED_MEMORY_MEGABYTES)  # noqa: S108 - in our own mount namespace


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=20)  # noqa: S603 - fixed commands


def _fails(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True, timeout=20).returncode != 0  # noqa: S603
