"""Keeps what was measured, so that an evaluation that was stopped goes on where it was.

Keys hold the hash of the content, the condition, and a fingerprint of models and code: nothing stale is ever
found again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

Values = Mapping[str, float]


class ScoreCache:
    """Small numbers by key, appended to one file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Values] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._known[entry["key"]] = entry["values"]
        except (ValueError, KeyError, TypeError):
            return  # a line cut short when a run was stopped

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Values:
        return self._known[key]

    def put(self, entries: Mapping[str, Values]) -> None:
        """Keep some values."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            for key, values in entries.items():
                stream.write(json.dumps({"key": key, "values": dict(values)}) + "\n")
        self._known.update(entries)


class BlobCache:
    """Byte strings by key, one file each; safe for several processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.bin"

    def get(self, key: str) -> bytes | None:
        """The bytes, or None."""
        path = self._path(key)
        return path.read_bytes() if path.is_file() else None

    def put(self, key: str, data: bytes) -> None:
        """Keep bytes."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(data)
        partial.replace(path)


def digest(*parts: str | bytes) -> str:
    """SHA-256 of parts, hexadecimal; where one ends and the next begins counts."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()
