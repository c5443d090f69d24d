"""Become a command that cannot outlive the one who started it: ``leash.py PARENT_PID COMMAND...``.

Linux then kills the command when the thread that started it ends, even by SIGKILL (prctl(2),
PR_SET_PDEATHSIG). A step of its own before exec, because ``preexec_fn`` is not safe beside other threads.
Elsewhere the command simply runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Put this process on the leash and replace it by the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it ended before the leash was on
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the caller's own command


if __name__ == "__main__":
    main()
