"""What one labelled example got from the branches: the one form that all figures are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

REAL = "real"
GENERATED = "generated"
CLEAN = "clean"
FUSED = "fused"
BRANCHES = ("frame", "patch", "temporal", "audio", "sync", FUSED)
"""Branches of the summary, in its order."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example under one condition.

    ``label`` is 1 for fake, ``scores`` is branch → P(deepfake), without the branches that gave none.
    ``kind`` is ``real`` or how a clip was altered; ``traits`` are further numbers or texts for slices;
    ``subsets`` is names of branches joined by "+" → P(deepfake) of the head of just these; ``verdicts`` is
    policy → verdict.
    """

    name: str
    collection: str
    label: int
    group: str
    scores: Mapping[str, float]
    source: str = ""
    method: str = ""
    kind: str = ""
    condition: str = CLEAN
    traits: Mapping[str, float | str] = field(default_factory=dict)
    subsets: Mapping[str, float] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Columns:
    """The rows that one branch scored, as columns of equal length."""

    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    groups: list[str]

    @property
    def has_both(self) -> bool:
        """Whether both classes are there."""
        return 0 < int(self.labels.sum()) < self.labels.size


def columns(rows: Iterable[Row], branch: str, group: Callable[[Row], str] | None = None) -> Columns:
    """Columns of a branch; ``group`` says what the bootstrap draws (the rows' own groups if None)."""
    chosen = [row for row in rows if branch in row.scores]
    return Columns(
        np.array([row.label for row in chosen], dtype=np.int64),
        np.array([row.scores[branch] for row in chosen], dtype=np.float64),
        [group(row) if group else row.group for row in chosen],
    )


def split(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """Rows by a text of theirs, in order of that text; an empty text is left out."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        if key(row):
            parts.setdefault(key(row), []).append(row)
    return dict(sorted(parts.items()))


def count(rows: Sequence[Row], label: int) -> int:
    """Rows of one class."""
    return sum(row.label == label for row in rows)
