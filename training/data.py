"""Readers of the labelled data: zip sets with their manifests, and open clips.

A set is ``NAME.zip`` with ``NAME.tsv`` beside it; ``clips/clips.tsv`` lists files that lie open. The first
line of a manifest names its columns: ``file`` is the path in the set, ``label`` the class, and ``group``
what a split must never divide.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

DATA_SETTING = "BONAFIDE_DATA"
SAMPLE_RATE = 16_000
_GENUINE_LABELS = frozenset({"real", "bonafide"})
_SOUND_SUFFIXES = frozenset({".flac", ".wav", ".ogg", ".mp3"})


def data_root() -> Path:
    """The data directory: the setting BONAFIDE_DATA, or ``../shared/data`` beside the repository."""
    configured = os.environ.get(DATA_SETTING)
    return Path(configured) if configured else Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a manifest. ``label`` as written; ``fields`` holds every column."""

    file: str
    label: str
    group: str
    fields: Mapping[str, str]

    @property
    def fake(self) -> int:
        """1 unless the label is ``real`` or ``bonafide``."""
        return int(self.label not in _GENUINE_LABELS)


def read_manifest(path: Path) -> tuple[Example, ...]:
    """Rows of a tab-separated manifest.

    Raises:
        ValueError: a column that every manifest needs is missing.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    missing = {"file", "label", "group"} - set(rows[0] if rows else ())
    if missing:
        raise ValueError(f"{path.name} lacks the columns {sorted(missing)}")
    return tuple(Example(row["file"], row["label"], row["group"], row) for row in rows)


class ZipSet:
    """A manifest and the archive beside it. Not safe for use from several threads."""

    def __init__(self, manifest: Path) -> None:
        self.name = manifest.stem
        self.examples = read_manifest(manifest)
        self._archive = zipfile.ZipFile(manifest.with_suffix(".zip"))

    @property
    def is_sound(self) -> bool:
        """Whether the set holds sound rather than pictures."""
        return Path(self.examples[0].file).suffix.lower() in _SOUND_SUFFIXES

    def read(self, example: Example) -> bytes:
        """The bytes of one file."""
        return self._archive.read(example.file)

    def picture(self, example: Example) -> npt.NDArray[np.uint8]:
        """One picture, uint8 [height, width, 3] RGB.

        Raises:
            ValueError: the bytes are no picture.
        """
        encoded = np.frombuffer(self.read(example), dtype=np.uint8)
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError(f"{self.name}: {example.file} is not a picture")
        return np.ascontiguousarray(pixels[:, :, ::-1], dtype=np.uint8)

    def samples(self, example: Example) -> npt.NDArray[np.float32]:
        """One utterance as the manifest keeps it: float32 [time], mono, 16 kHz, within ±1.

        Raises:
            ValueError: it is not mono at 16 kHz.
        """
        import soundfile  # noqa: PLC0415 - only the training environment has it

        values, rate = soundfile.read(io.BytesIO(self.read(example)), dtype="float32", always_2d=True)
        if rate != SAMPLE_RATE or values.shape[1] != 1:
            raise ValueError(f"{self.name}: {example.file} is not mono at {SAMPLE_RATE} Hz")
        return np.ascontiguousarray(values[:, 0], dtype=np.float32)

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


def zip_sets(root: Path | None = None) -> tuple[ZipSet, ...]:
    """Every ``*.tsv`` with a ``*.zip`` beside it under a directory, by name."""
    manifests = sorted((root or data_root()).rglob("*.tsv"), key=lambda path: path.stem)
    return tuple(ZipSet(path) for path in manifests if path.with_suffix(".zip").is_file())


def zip_set(name: str, root: Path | None = None) -> ZipSet:
    """The set of one name.

    Raises:
        FileNotFoundError: there is none, or more than one.
    """
    manifests = [path for path in (root or data_root()).rglob(f"{name}.tsv") if path.with_suffix(".zip").is_file()]
    if len(manifests) != 1:
        raise FileNotFoundError(f"{len(manifests)} sets named {name} under {root or data_root()}")
    return ZipSet(manifests[0])


@dataclass(frozen=True, slots=True)
class Clip:
    """One row of the clips' manifest and where its file lies."""

    example: Example
    path: Path


def clips(root: Path | None = None) -> tuple[Clip, ...]:
    """The clips listed in ``clips/clips.tsv``; empty if there is no such manifest."""
    manifest = (root or data_root()) / "clips" / "clips.tsv"
    if not manifest.is_file():
        return ()
    return tuple(Clip(example, manifest.parent / example.file) for example in read_manifest(manifest))


def group_fraction(group: str, seed: int = 0) -> float:
    """A number in [0, 1) that depends on the group's name and the seed alone, so that splits never drift."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(groups: Iterable[str], fraction: float, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Which rows a split holds out: about ``fraction`` of the groups, each whole.

    Args:
        groups: group of every row.
        fraction: share of the groups to hold out, 0 to 1.
        seed: another seed gives another split.

    Returns:
        bool [rows].
    """
    return np.array([group_fraction(group, seed) < fraction for group in groups], dtype=np.bool_)


def folds(groups: Iterable[str], count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Fold of every row, 0 to ``count`` - 1; a group lies in one fold."""
    return np.array([int(group_fraction(group, seed) * count) for group in groups], dtype=np.int64)
