"""From labelled clips and stills to the rows that each head is fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from services.common.evidence import Branch, BranchReport
from services.fusion.features import clip_features, scored_branches
from training.fusion.corpus import VISIBLE_TO, Kind
from training.fusion.fitting import Table, feature_names, transformed

FAMILIES: tuple[Mapping[Kind, float], ...] = (
    {Kind.GENERATED: 0.88, Kind.BLENDED: 0.12},
    {Kind.DUBBED: 0.68, Kind.SYNTHETIC: 0.32},
    {Kind.SHIFTED: 1.0},
    {Kind.STILL: 1.0},
)
"""What may have been done to a clip: its faces altered, its voice replaced, its sound moved, a picture made to speak;
each counts alike, and as much as that nothing was done. The numbers divide a family among its kinds: self-blending is
what the frame classifier was taught with, so it says least of forgeries that users meet."""
SHARES: Mapping[Kind, float] = MappingProxyType(
    {Kind.REAL: 1.0} | {kind: share / len(FAMILIES) for family in FAMILIES for kind, share in family.items()}
)
"""How much all clips of a kind weigh together."""
CLIPS = "clips"
DOMAIN_SHARES: Mapping[str, float] = MappingProxyType(
    {CLIPS: 1.0, "dfdc_faces_val": 0.5, "manipulated_faces_train": 0.5, "mesonet_faces_train": 0.2}
)
"""How much of its kind clips and each set of stills weigh."""


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One clip or still: its features, by the branches that scored it; ``domain`` is a key of DOMAIN_SHARES.

    ``statistics`` are those of ``training/fusion/statistics.py``.
    """

    name: str
    group: str
    source: str
    kind: Kind
    branches: frozenset[Branch]
    features: Mapping[str, float]
    domain: str = CLIPS
    statistics: Mapping[str, float] = field(default_factory=dict)

    @property
    def fake(self) -> int:
        """1 unless real."""
        return int(self.kind is not Kind.REAL)


def labelled_row(
    name: str,
    group: str,
    source: str,
    kind: Kind,
    reports: Sequence[BranchReport],
    statistics: Mapping[str, float] = MappingProxyType({}),
) -> LabelledRow:
    """The row of one complete ledger."""
    features = clip_features(reports)
    return LabelledRow(name, group, source, kind, scored_branches(reports), features, statistics=statistics)


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
        odds=prior_odds(branches),
    )


def prior_odds(branches: frozenset[Branch]) -> float:
    """Forgeries for each real clip for which a head is calibrated: one of each family that it can see."""
    return float(sum(any(VISIBLE_TO[kind] & branches for kind in family) for family in FAMILIES))


def row_weights(rows: Sequence[LabelledRow]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Weight of each row: shares of its kind and domain, divided among their groups and the rows of its group."""
    cells = [(row.kind, row.domain) for row in rows]
    groups: dict[tuple[Kind, str], set[str]] = {}
    members: dict[tuple[Kind, str, str], int] = {}
    for cell, row in zip(cells, rows, strict=True):
        groups.setdefault(cell, set()).add(row.group)
        members[*cell, row.group] = members.get((*cell, row.group), 0) + 1
    domains: dict[Kind, float] = {}
    for kind, domain in groups:
        domains[kind] = domains.get(kind, 0.0) + DOMAIN_SHARES[domain]
    return np.array(
        [
            SHARES[row.kind]
            * (DOMAIN_SHARES[row.domain] / domains[row.kind])
            / (len(groups[cell]) * members[*cell, row.group])
            for cell, row in zip(cells, rows, strict=True)
        ],
        dtype=np.float64,
    )
