"""Finds the labelled sets of a directory by itself, and knows which of the shared ones are fair to measure on.

A set is ``NAME.tsv`` beside ``NAME.zip``; whether it holds pictures or sound follows from its files' names. A
``*.tsv`` whose files lie open beside it lists clips.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data import Clip, Example, ZipSet, read_manifest
from training.frame.selection import held_out_rows

MIXED_FACES = "manipulated_faces_train"
FAIR_FACES = frozenset({"dfdc_faces_val", "mesonet_faces_train", MIXED_FACES})
"""Shared face sets of which at least a part was never trained on."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Examples of one archive, under the name that reports use."""

    name: str
    archive: ZipSet
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class ClipSet:
    """The clips of one manifest, under the name of its directory."""

    name: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """All that was found; ``notes`` says what was passed over and why."""

    faces: tuple[LabelledSet, ...]
    speech: tuple[LabelledSet, ...]
    clips: tuple[ClipSet, ...]
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Labelled examples in all."""
        return sum(len(part.examples) for part in (*self.faces, *self.speech)) + sum(
            len(part.clips) for part in self.clips
        )


def discover(root: Path) -> Collection:
    """Everything labelled under a directory, at any depth.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no directory")
    faces, speech, clips, notes = [], [], [], []
    for manifest in sorted(root.rglob("*.tsv"), key=lambda path: (path.stem, str(path))):
        try:
            found = _read(manifest)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            notes.append(f"{manifest.name} was passed over: {error}")
            continue
        if isinstance(found, ClipSet):
            clips.append(found)
        elif found.archive.is_sound:
            speech.append(found)
        else:
            faces.append(found)
    return Collection(tuple(_distinct(faces)), tuple(_distinct(speech)), tuple(clips), tuple(notes))


def held_out_part(collection: Collection) -> Collection:
    """Of the shared data, what the still networks were not trained on; speech is measured by its card.

    The clips stay: which of their figures are fair is said in the report.
    """
    faces = [_fair(part) for part in collection.faces if part.name in FAIR_FACES]
    return Collection(tuple(faces), (), collection.clips, collection.notes)


def _fair(part: LabelledSet) -> LabelledSet:
    if part.name != MIXED_FACES:
        return part
    rows = held_out_rows(part.examples).tolist()
    return LabelledSet("manipulated_faces_held_out", part.archive, tuple(part.examples[row] for row in rows))


def _read(manifest: Path) -> LabelledSet | ClipSet:
    if manifest.with_suffix(".zip").is_file():
        archive = ZipSet(manifest)
        if not archive.examples:
            raise ValueError("it lists no file")
        return LabelledSet(archive.name, archive, archive.examples)
    examples = read_manifest(manifest)
    listed = [Clip(example, manifest.parent / example.file) for example in examples]
    present = tuple(clip for clip in listed if clip.path.is_file())
    if not present:
        raise ValueError("there is no zip beside it, and the files it lists are not there")
    return ClipSet(manifest.parent.name, present)


def _distinct(sets: Iterable[LabelledSet]) -> Sequence[LabelledSet]:
    """Sets whose names differ: of two namesakes the second gets its directory's name in front."""
    named: dict[str, LabelledSet] = {}
    for part in sets:
        name = part.name
        while name in named:
            name = f"{name}_more"
        named[name] = LabelledSet(name, part.archive, part.examples)
    return list(named.values())
