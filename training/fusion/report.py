"""What is written into a head's training report: how it does on groups that it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from training.fusion.corpus import Kind
from training.fusion.rows import LabelledRow
from training.metrics import measure

Floats = npt.NDArray[np.float64]
SOUND_KINDS = frozenset({Kind.DUBBED, Kind.SYNTHETIC, Kind.SHIFTED, Kind.STILL})
FACE_KINDS = frozenset({Kind.GENERATED})
SHOWN = ("auc", "tpr_at_fpr_5", "brier", "ece")


def held_out_report(rows: Sequence[LabelledRow], probabilities: Floats, seed: int) -> dict[str, Any]:
    """Figures on held-out groups, by kind against all real rows, and pooled.

    Args:
        rows: what was scored.
        probabilities: P(deepfake) of each by a head that has not seen its group.
        seed: of the bootstrap.
    """
    kinds = np.array([row.kind.value for row in rows])
    slices = {"all": frozenset(Kind), "altered_sound_or_timing": SOUND_KINDS, "generated_faces": FACE_KINDS}
    slices |= {kind.value: frozenset({kind}) for kind in Kind if kind is not Kind.REAL}
    figures: dict[str, Any] = {}
    for name, members in slices.items():
        chosen = np.isin(kinds, [Kind.REAL.value, *members])
        labels = np.array([row.fake for row in rows])[chosen]
        if 0 < labels.sum() < len(labels):
            groups = [row.group for row, taken in zip(rows, chosen, strict=True) if taken]
            found = measure(labels, probabilities[chosen], groups, seed=seed)
            figures[name] = {metric: found[metric].as_dict() for metric in SHOWN}
    return figures


def counts(rows: Sequence[LabelledRow]) -> dict[str, int]:
    """Rows of each kind, and groups."""
    found = Counter(row.kind.value for row in rows)
    return {**dict(sorted(found.items())), "groups": len({row.group for row in rows})}
