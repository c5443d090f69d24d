"""Rows of face stills that no network was trained on: they widen the calibration of heads for pictures alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from services.common.errors import BonafideError
from services.common.media import Frame
from training.data import Example, ZipSet, zip_set
from training.forging import generator
from training.frame.selection import held_out_rows
from training.fusion.corpus import Evidence, Kind
from training.fusion.rows import LabelledRow, labelled_row

MIXED = "manipulated_faces_train"
MOST = {"dfdc_faces_val": 300, MIXED: 300, "mesonet_faces_train": 100}
"""Stills of each class that are taken of each set, at most one of a class from one group."""


def still_rows(evidence: Evidence, seed: int, most: int | None = None) -> list[LabelledRow]:
    """Rows of single pictures as the visual pipeline scores them; none of sets that are missing.

    Args:
        evidence: gives the pipelines.
        seed: of which stills are taken.
        most: fewer stills of each class and set.
    """
    rows: list[LabelledRow] = []
    for name, usual in MOST.items():
        try:
            faces = zip_set(name)
        except FileNotFoundError:
            continue
        chosen = _chosen(faces, seed, usual if most is None else min(most, usual))
        found = (_row(evidence, faces, example) for example in tqdm(chosen, desc=name, unit="still"))
        rows += [row for row in found if row is not None and row.branches]
        faces.close()
    return rows


def _chosen(faces: ZipSet, seed: int, most: int) -> list[Example]:
    """Stills that the frame classifier was not trained on, drawn by the seed."""
    allowed: Sequence[int] = range(len(faces.examples))
    if faces.name == MIXED:
        allowed = [int(at) for at in held_out_rows(faces.examples)]
    taken: dict[tuple[str, int], Example] = {}
    for at in generator("stills", seed).permutation(len(allowed)):
        example = faces.examples[allowed[at]]
        if sum(fake == example.fake for _, fake in taken) < most:
            taken.setdefault((example.group, example.fake), example)
    return list(taken.values())


def _row(evidence: Evidence, faces: ZipSet, example: Example) -> LabelledRow | None:
    try:
        seen = evidence.pipelines.see((Frame(0, faces.picture(example)),), ())
    except BonafideError:
        return None
    kind = Kind.GENERATED if example.fake else Kind.REAL
    source = example.fields.get("source", faces.name)
    name, group = f"{faces.name}:{example.file}", f"{faces.name}:{example.group}"
    return replace(labelled_row(name, group, source, kind, seen.reports), domain=faces.name)
