"""Child processes that log to a file, stop when told, and never outlive their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_LEASH = Path(__file__).with_name("leash.py")


class ManagedProcess:
    """One child in a session of its own, so that a terminal's Ctrl-C reaches only the parent.

    The child is killed when the *thread* that called the constructor ends (see ``leash.py``).
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = [*command]
        self._environment = {**environment}
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as stream:
            return subprocess.Popen(  # noqa: S603 - commands of our own making
                [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *self._command],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.exit_code is None:
            self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; False when it still runs after so long."""
        try:
            self._process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def restart(self) -> None:
        """Start the same command again, on the leash of the calling thread; whatever is left of it is killed first."""
        self.kill()
        self._process = self._spawn()

    def kill(self) -> None:
        """Kill whatever is left of the child and of its own children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def last_line(self, containing: str = "") -> str:
        """The last line of the log that holds a text and is not blank; empty when there is none."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip() and containing in line), "")


def stop_together(processes: Sequence[ManagedProcess], grace_seconds: float) -> None:
    """Ask several processes to stop, give all of them the same grace, then kill what is left."""
    ends = time.monotonic() + grace_seconds
    try:
        for process in processes:
            process.ask_to_stop()
        for process in processes:
            process.wait(ends - time.monotonic())
    finally:
        for process in processes:
            process.kill()


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports of the loopback interface that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
