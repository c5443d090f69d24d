"""Rows of face stills that no network was trained on: they widen the calibration of heads for pictures alone."""

from __future__ import annotations

from tqdm import tqdm

from services.common.errors import BonafideError
from services.common.media import Frame
from training.data import zip_set
from training.forging import generator
from training.fusion.corpus import Evidence, Kind
from training.fusion.rows import LabelledRow, labelled_row

STILL_SET = "dfdc_faces_val"
MOST = 300
"""Stills of each class, at most one of a class from one original."""


def still_rows(evidence: Evidence, seed: int, most: int = MOST) -> list[LabelledRow]:
    """Rows of single pictures as the visual pipeline scores them; empty where the set is missing.

    Args:
        evidence: gives the pipelines.
        seed: of which stills are taken.
        most: stills of each class.
    """
    try:
        faces = zip_set(STILL_SET)
    except FileNotFoundError:
        return []
    order = generator("stills", seed).permutation(len(faces.examples))
    taken: set[tuple[str, int]] = set()
    rows: list[LabelledRow] = []
    for at in tqdm(order, desc="stills", unit="still"):
        example = faces.examples[at]
        key = (example.group, example.fake)
        if key in taken or sum(fake == example.fake for _, fake in taken) >= most:
            continue
        taken.add(key)
        kind = Kind.GENERATED if example.fake else Kind.REAL
        try:
            seen = evidence.pipelines.see((Frame(0, faces.picture(example)),), ())
        except BonafideError:
            continue
        name = f"{STILL_SET}:{example.file}"
        rows.append(labelled_row(name, f"{STILL_SET}:{example.group}", STILL_SET, kind, seen.reports))
    faces.close()
    return [row for row in rows if row.branches]
