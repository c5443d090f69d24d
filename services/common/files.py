"""Files that may change while a service runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Fingerprint = tuple[tuple[int, int, int], ...]


def fingerprint(paths: Iterable[Path]) -> Fingerprint:
    """Changes whenever one of the files is replaced or rewritten; costs a stat of each."""
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
