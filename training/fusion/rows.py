"""From labelled clips and stills to the rows that each head is fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from services.common.evidence import Branch, BranchReport
from services.fusion.features import clip_features, scored_branches
from training.fusion.corpus import VISIBLE_TO, Kind
from training.fusion.fitting import Table, feature_names, transformed

SHARES: Mapping[Kind, float] = MappingProxyType(
    {
        Kind.REAL: 1.0,
        Kind.GENERATED: 0.45,
        Kind.BLENDED: 0.10,
        Kind.DUBBED: 0.15,
        Kind.SYNTHETIC: 0.10,
        Kind.SHIFTED: 0.10,
        Kind.STILL: 0.10,
    }
)
"""How much all clips of a kind weigh together. Self-blending is what the frame classifier was taught with,
so it says least of forgeries that users meet."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One clip or still: its features, by the branches that scored it."""

    name: str
    group: str
    source: str
    kind: Kind
    branches: frozenset[Branch]
    features: Mapping[str, float]

    @property
    def fake(self) -> int:
        """1 unless real."""
        return int(self.kind is not Kind.REAL)


def labelled_row(name: str, group: str, source: str, kind: Kind, reports: Sequence[BranchReport]) -> LabelledRow:
    """The row of one complete ledger."""
    return LabelledRow(name, group, source, kind, scored_branches(reports), clip_features(reports))


def rows_for(rows: Sequence[LabelledRow], branches: frozenset[Branch]) -> list[LabelledRow]:
    """Rows that a head can learn from: all its branches scored, and one of them can see the forgery."""
    return [row for row in rows if branches <= row.branches and VISIBLE_TO[row.kind] & branches]


def table_for(rows: Sequence[LabelledRow], branches: frozenset[Branch]) -> Table:
    """The table of some rows for one head; each kind weighs its share, and each group in it the same."""
    names = feature_names(branches)
    return Table(
        names=names,
        values=transformed([row.features for row in rows], names),
        labels=np.array([row.fake for row in rows], dtype=np.int64),
        weights=row_weights(rows),
        groups=np.array([row.group for row in rows]),
    )


def row_weights(rows: Sequence[LabelledRow]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Weight of each row: its kind's share, divided by the kind's groups and by the rows of its group."""
    groups: dict[Kind, set[str]] = {}
    members: dict[tuple[Kind, str], int] = {}
    for row in rows:
        groups.setdefault(row.kind, set()).add(row.group)
        members[row.kind, row.group] = members.get((row.kind, row.group), 0) + 1
    return np.array(
        [SHARES[row.kind] / len(groups[row.kind]) / members[row.kind, row.group] for row in rows], dtype=np.float64
    )
