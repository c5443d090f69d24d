"""An inference engine that remembers: rows it has seen are not computed again.

The served pipelines run on it unchanged, so training features come from serving code, and a new version of
one model costs no second run of the others.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import sqlite3
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from services.common.inference import Array, EmbeddedEngine
from services.common.models import ModelRepository

DETECTOR = "face_detector"
LEAST_SCORE = 0.05
"""Detector cells that are less sure are kept as zeros, which compress to nothing."""
FORGOTTEN = frozenset({"activation_map", "patch_logits"})
"""Outputs of which only the shape is read; they are kept as zeros."""


class MemoEngine:
    """An embedded engine with a memory on disk, keyed by model hash and input bytes of each batch row."""

    kind = "embedded"

    def __init__(self, repository: ModelRepository, memory: Path) -> None:
        self._repository = repository
        self._engine = EmbeddedEngine(repository)
        memory.parent.mkdir(parents=True, exist_ok=True)
        self._store = sqlite3.connect(memory, check_same_thread=False, isolation_level=None, timeout=60)
        self._store.execute("PRAGMA journal_mode=WAL")
        self._store.execute("PRAGMA synchronous=OFF")
        self._store.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._lock = threading.Lock()

    async def infer(self, model: str, inputs: Mapping[str, Array], *, timeout: float) -> dict[str, Array]:
        """See InferenceEngine."""
        async with asyncio.timeout(timeout):
            return await asyncio.to_thread(self.run, model, inputs)

    async def close(self) -> None:
        """See InferenceEngine."""
        self._store.close()

    def run(self, model: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a model on a batch, from memory where its rows were seen before."""
        count = len(next(iter(inputs.values())))
        digest = self._repository.card(model).sha256
        keys = [_key(digest, {name: batch[at] for name, batch in inputs.items()}) for at in range(count)]
        found = [self._recall(key) for key in keys]
        fresh = [place for place, row in enumerate(found) if row is None]
        if fresh:
            outputs = self._engine.run(model, {name: batch[fresh] for name, batch in inputs.items()})
            for at, place in enumerate(fresh):
                row = _slim(model, {output: values[at] for output, values in outputs.items()})
                self._keep(keys[place], row)
                found[place] = row
        rows = [row for row in found if row is not None]
        return {output: np.stack([row[output] for row in rows]) for output in rows[0]}

    def _recall(self, key: bytes) -> dict[str, Array] | None:
        with self._lock:
            found = self._store.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
        return None if found is None else unpacked(found[0])

    def _keep(self, key: bytes, row: Mapping[str, Array]) -> None:
        value = packed(row)
        with self._lock:
            self._store.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (key, value))


def packed(row: Mapping[str, Array]) -> bytes:
    """Named arrays as compressed bytes: a line of JSON with names, types and shapes, then the values.

    NumPy's own format is read through ``ast``, which Python 3.11 cannot use from several threads.
    """
    header = [(name, values.dtype.str, values.shape) for name, values in row.items()]
    values = b"".join(np.ascontiguousarray(values).tobytes() for values in row.values())
    return zlib.compress(json.dumps(header).encode() + b"\n" + values, 1)


def unpacked(data: bytes) -> dict[str, Array]:
    """The inverse of ``packed``."""
    header, _, values = zlib.decompress(data).partition(b"\n")
    row: dict[str, Array] = {}
    at = 0
    for name, kind, shape in json.loads(header):
        count = math.prod(shape)
        row[name] = np.frombuffer(values, kind, count, at).reshape(shape)
        at += row[name].nbytes
    return row


def _key(model: str, row: Mapping[str, Array]) -> bytes:
    digest = hashlib.blake2b(model.encode(), digest_size=16)
    for name, values in sorted(row.items()):
        digest.update(f"{name}:{values.shape}:{values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.digest()


def _slim(model: str, row: Mapping[str, Array]) -> dict[str, Array]:
    """What serving code reads of one row's outputs, in a form that compresses well."""
    kept = {name: np.zeros_like(values) if name in FORGOTTEN else values for name, values in row.items()}
    if model != DETECTOR:
        return kept
    sure = np.sqrt(np.clip(row["cls"] * row["obj"], 0, 1)) >= LEAST_SCORE
    return {name: np.where(sure, values, 0).astype(values.dtype) for name, values in kept.items()}
