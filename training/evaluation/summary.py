"""The figures of an evaluation in one form: branch → source → metric → ``{value, low, high, n}``.

``all`` is everything that a branch was measured on: single pictures for ``frame`` and ``patch``, utterances
for ``audio``, clips for the others; where there are only clips, clips. Under the names of clip sets are
their own clips alone; forgeries made here count under their kind and under ``all``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.evaluation.rows import BRANCHES, CLEAN, GENERATED, REAL, Columns, Row, columns, count, split
from training.forging import Forgery
from training.metrics import ECE_BINS, Measure, bootstrap, measure

KINDS = frozenset({REAL, GENERATED, *(str(forgery) for forgery in Forgery)})
"""Kinds of clips that count under ``all``; recipes that only training makes are told by themselves."""
FEWEST = 5
"""Rows of a class below which a source or method is not reported by itself."""
FEWEST_GROUPS = 8
"""Distinct groups below which intervals come from drawing rows."""
BALANCED = "ece_balanced"
"""Beside the plain error, since how many of a kind a set holds is an accident: heads are fitted for even odds."""
ALL = "all"
WITHIN = "within_source_mean"
DEGRADED = "degraded_"
UNDEGRADED = "degraded_none"

Figures = dict[str, Measure]
Summary = dict[str, dict[str, Figures]]
"""Branch → source → metric → figure."""


@dataclass(frozen=True, slots=True)
class Measured:
    """All rows of an evaluation, under all conditions."""

    stills: Sequence[Row] = ()
    speech: Sequence[Row] = ()
    clips: Sequence[Row] = ()


def summarise(measured: Measured) -> Summary:
    """All figures that are defined."""
    summary: Summary = {branch: {} for branch in BRANCHES}
    for branch in BRANCHES:
        summary[branch] |= _of_clips(_clean(measured.clips), branch)
        summary[branch] |= _of_degraded_clips(measured.clips, branch)
    for branch in ("frame", "patch"):
        summary[branch] |= _of_stills(measured.stills, branch)
    summary["audio"] |= _of_speech(measured.speech)
    return {branch: {source: row for source, row in table.items() if row} for branch, table in summary.items()}


def figures(rows: Iterable[Row], branch: str, group: Callable[[Row], str] | None = None) -> Figures:
    """The figures of a branch on some rows; empty without a row that it scored."""
    found = columns(rows, branch, group)
    if not found.labels.size:
        return {}
    groups = _drawn(found.groups)
    measures = measure(found.labels, found.scores, groups)
    if found.has_both:
        measures[BALANCED] = bootstrap(found.labels, found.scores, groups, lambda rows: _balanced_error(found, rows))
    return {name: value for name, value in measures.items() if math.isfinite(value.value)}


def _balanced_error(found: Columns, rows: npt.NDArray[np.int64]) -> float:
    """Expected calibration error with both classes weighing the same; NaN if one is missing."""
    labels, scores = found.labels[rows], found.scores[rows]
    share = labels.mean()
    if share in (0, 1):
        return math.nan
    weights = np.where(labels == 1, 0.5 / share, 0.5 / (1 - share)) / labels.size
    bins = np.minimum((scores * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    return float(np.abs(np.bincount(bins, weights=weights * (scores - labels), minlength=ECE_BINS)).sum())


def _drawn(groups: list[str]) -> list[str]:
    """What the bootstrap draws: groups, or single rows where there are too few groups to say anything."""
    return groups if len(set(groups)) >= FEWEST_GROUPS else [str(index) for index in range(len(groups))]


def _clean(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.condition == CLEAN]


def _of_stills(rows: Sequence[Row], branch: str) -> dict[str, Figures]:
    clean = _clean(rows)
    table = {}
    if any(branch in row.scores for row in clean):
        table[ALL] = figures(clean, branch)
    for name, part in split(clean, lambda row: row.collection).items():
        table[name] = figures(part, branch)
        # Where a set has sources, a method is measured against the real pictures of the set.
        reals = [row for row in part if not row.label]
        for method, fakes in split(part, lambda row: row.method if row.label else "").items():
            if len(fakes) >= FEWEST and len(reals) >= FEWEST:
                table[method] = figures([*reals, *fakes], branch)
    return table | _degraded(rows, branch)


def _of_speech(rows: Sequence[Row]) -> dict[str, Figures]:
    clean = _clean(rows)
    table = {}
    if any("audio" in row.scores for row in clean):
        # Utterances of one source share its recordings and its systems, so whole sources are drawn.
        table[ALL] = figures(clean, "audio", lambda row: row.source)
    for name, part in split(clean, lambda row: row.collection).items():
        table[name] = figures(part, "audio", lambda row: row.source)
    for source, part in _whole_sources(clean).items():
        table[source] = figures(part, "audio")
    table[WITHIN] = within_sources(clean, "audio")
    return table | _degraded(rows, "audio", lambda row: row.source)


def _degraded(rows: Sequence[Row], branch: str, group: Callable[[Row], str] | None = None) -> dict[str, Figures]:
    conditions = split(rows, lambda row: "" if row.condition == CLEAN else row.condition)
    table = {f"{DEGRADED}{name}": figures(part, branch, group) for name, part in conditions.items()}
    if table:
        # The same examples without degradation, which are not all that were measured clean.
        chosen = {(row.collection, row.name) for row in rows if row.condition != CLEAN}
        table[UNDEGRADED] = figures(
            (row for row in _clean(rows) if (row.collection, row.name) in chosen), branch, group
        )
    return table


def _of_clips(rows: Sequence[Row], branch: str) -> dict[str, Figures]:
    if not any(branch in row.scores for row in rows):
        return {}
    table = {ALL: figures((row for row in rows if row.kind in KINDS), branch)}
    own = [row for row in rows if not row.traits.get("forged_here")]
    for name, part in split(own, lambda row: row.collection).items():
        table[name] = figures(part, branch)
    reals = [row for row in rows if row.kind == REAL]
    for kind, altered in split(rows, lambda row: "" if row.kind == REAL else row.kind).items():
        table[kind] = figures([*reals, *altered], branch)
    generated = [row for row in rows if row.kind == GENERATED]
    for method, fakes in split(generated, lambda row: row.method).items():
        if len(fakes) >= FEWEST:
            table[method] = figures([*reals, *fakes], branch)
    return table


def _of_degraded_clips(rows: Sequence[Row], branch: str) -> dict[str, Figures]:
    """Clips that went through a codec again, real against generated."""
    conditions = split(rows, lambda row: "" if row.condition == CLEAN else row.condition)
    return {f"{DEGRADED}clips_{name}": figures(part, branch) for name, part in conditions.items()}


def _whole_sources(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Sources with enough scored rows of both classes."""
    scored = [row for row in rows if "audio" in row.scores]
    parts = split(scored, lambda row: row.source)
    return {name: part for name, part in parts.items() if min(count(part, 0), count(part, 1)) >= FEWEST}


def within_sources(rows: Iterable[Row], branch: str) -> Figures:
    """Each figure as the mean over sources with enough of both classes; the bootstrap draws sources."""
    parts = _whole_sources(rows)
    if not parts:
        return {}
    tables = []
    for part in parts.values():
        found = columns(part, branch)
        tables.append(measure(found.labels, found.scores, found.groups, resamples=1))
    names = list(parts)
    means: Figures = {}
    for metric in tables[0]:
        values = np.array([table[metric].value for table in tables])
        means[metric] = _mean(values, names)
    return means


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]], names: Sequence[str]) -> Measure:
    return bootstrap(np.zeros(values.size), values, list(names), lambda rows: float(values[rows].mean()))


def as_json(summary: Summary) -> str:
    """The summary as strict JSON; figures that are not numbers are left out."""
    table = {
        branch: {
            source: {name: _plain(value) for name, value in figures.items() if math.isfinite(value.value)}
            for source, figures in sources.items()
        }
        for branch, sources in summary.items()
    }
    return json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Measure) -> dict[str, float | int | None]:
    return {
        name: None if isinstance(number, float) and not math.isfinite(number) else number
        for name, number in value.as_dict().items()
    }


def from_card(metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Figures]:
    """Figures of a model card, as measured at training on what was held out."""
    return {
        source: {
            name: Measure(entry["value"], entry["low"], entry["high"], int(entry["n"])) for name, entry in row.items()
        }
        for source, row in metrics.items()
    }


def write(summary: Summary, folder: Path) -> Path:
    """Write ``summary.json``."""
    path = folder / "summary.json"
    path.write_text(as_json(summary), encoding="utf-8")
    return path
