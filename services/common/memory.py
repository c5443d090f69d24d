"""Memory for large messages: keep what was freed, because the kernel charges for every new page.

A clip's frames are some hundred megabytes that gRPC and protobuf copy several times. By default glibc maps
each such block afresh and unmaps it when it is freed, and most of a hop's cost is page faults: 1.0 s of
processor time for 173 MB over loopback, 0.2 s with these settings (``make bench`` has both ends).
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3), from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let glibc serve large blocks from one heap and give back only what is free beyond KEPT_BYTES.

    Call it first, before threads start. Does nothing, and answers False, without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: KEPT_BYTES}
    return all(mallopt(parameter, value) == 1 for parameter, value in wanted.items())
