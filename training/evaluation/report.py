"""The report for people: one Markdown page with tables, pictures, slices and cautions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from services.common.models import ModelRepository
from training.evaluation import goals
from training.evaluation.discovery import Collection
from training.evaluation.rows import BRANCHES, CLEAN, Row, split
from training.evaluation.stills import BRIGHTNESS, FOUND, SIZE
from training.evaluation.summary import DEGRADED, FEWEST, Measured, Summary, figures
from training.metrics import Measure

METRICS = ("auc", "eer", "tpr_at_fpr_1", "tpr_at_fpr_5", "ap", "accuracy", "brier", "ece", "ece_balanced")
TITLES = ("AUC", "EER", "TPR at 1 % FPR", "TPR at 5 % FPR", "AP", "accuracy", "Brier", "ECE", "ECE at even odds")
CAPTIONS = {
    "roc.png": "Receiver operating characteristic of each branch, by set and by kind of clip",
    "scores.png": "Distribution of scores by class",
    "reliability.png": "Reliability: what share of rows with a probability is fake (area of a dot: share of rows)",
    "confusion.png": "Confusion at a probability of 0.5",
    "ablation.png": "Heads of every set of branches, on clips where all of these branches scored",
    "robustness.png": "AUC under degradation; the dotted line is the clean figure",
    "verdicts.png": "Verdicts by kind of clip under each policy",
}
SHARED = (
    "Of the shared data only held-out parts are measured with the served weights. Where a model learns from all of "
    "it, the figures above are cross-validated: speech as its card says, clips by temporal and synchrony models and "
    "by heads of folds that had met neither the clip's identity nor, for the temporal network, its source."
)
SLICED = ("language", "sex", "gender", "age", "skin", "ethnicity")
"""Columns of a manifest that make fairness slices."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the page tells of; ``shared`` means the held-out parts of the shared data."""

    collection: Collection
    measured: Measured
    summary: Summary
    pictures: Sequence[str]
    refused: Sequence[str]
    statements: Sequence[str]
    shared: bool
    models: Path
    heads: Path
    seconds: float


def write(facts: Facts, folder: Path) -> Path:
    """Write ``README.md`` beside the pictures."""
    parts = [
        _head(facts),
        goals.goals(facts.summary) if facts.shared else "",
        _measured_on(facts),
        *(_branch(facts, branch) for branch in BRANCHES if facts.summary.get(branch)),
        goals.ensemble(facts.models),
        goals.boosted(facts.heads) if facts.shared else "",
        _robust(facts),
        _verdicts(facts.measured.clips),
        _slices(facts.measured),
        _pictures(facts),
        _trained_on(facts),
    ]
    path = folder / "README.md"
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


def _head(facts: Facts) -> str:
    day = datetime.now(UTC).date().isoformat()
    what = "the held-out parts of the shared data" if facts.shared else "the directory given"
    return (
        f"# Evaluation\n\nMade by `make evaluate` on {day} from {what}, {facts.seconds / 60:.0f} minutes. Every figure "
        "is followed by its 95 % interval, a bootstrap over groups (originals, identities or sources; over rows "
        "where there are fewer than eight groups), and by the number of rows. The same figures are in "
        "`summary.json`."
    )


def _measured_on(facts: Facts) -> str:
    measured, lines = facts.measured, ["## Measured on", "", "| set | real | fake | notes |", "|---|---|---|---|"]
    for name, rows in split(_clean(measured.stills), lambda row: row.collection).items():
        missed = sum(not row.traits.get(FOUND, 1.0) for row in rows)
        notes = [f"no face found in {missed}: the whole picture counts as the face"] if missed else []
        if name in goals.flattered(facts.models):
            notes.append("members of the ensemble learnt on it: its figures of frame flatter")
        lines.append(_set_line(name, rows, "; ".join(notes)))
    for name, rows in split(_clean(measured.speech), lambda row: row.collection).items():
        silent = sum("audio" not in row.scores for row in rows)
        lines.append(_set_line(name, rows, f"{silent} held too little speech to be scored" if silent else ""))
    for name, rows in split(_clean(measured.clips), lambda row: row.collection).items():
        for kind, part in split(rows, lambda row: row.kind).items():
            made = sum(bool(row.traits.get("forged_here")) for row in part)
            lines.append(_set_line(f"{name}: {kind}", part, f"{made} made here from real clips" if made else ""))
    if facts.refused:
        lines += ["", f"Refused by the gateway: {len(facts.refused)} clips."]
    lines += ["", *(f"- {note}" for note in facts.collection.notes)] if facts.collection.notes else []
    return "\n".join(lines)


def _set_line(name: str, rows: Sequence[Row], note: str) -> str:
    fakes = sum(row.label for row in rows)
    return f"| {name} | {len(rows) - fakes} | {fakes} | {note} |"


def _clean(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.condition == CLEAN]


def _branch(facts: Facts, branch: str) -> str:
    table = {name: row for name, row in facts.summary[branch].items() if not name.startswith(DEGRADED)}
    return f"## {branch}\n\n{_table(table)}"


def _table(table: dict[str, dict[str, Measure]]) -> str:
    lines = ["| source | n | " + " | ".join(TITLES) + " |", "|---" * (len(TITLES) + 2) + "|"]
    for name, row in table.items():
        rows = max(value.n for value in row.values())
        cells = [_cell(row.get(metric)) for metric in METRICS]
        lines.append(f"| {name} | {rows} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: Measure | None) -> str:
    return f"{value.value:.3f} ({value.low:.2f}–{value.high:.2f})" if value is not None else "–"


def _robust(facts: Facts) -> str:
    lines = []
    for branch in BRANCHES:
        table = {
            name.removeprefix(DEGRADED): row
            for name, row in facts.summary.get(branch, {}).items()
            if name.startswith(DEGRADED) and row
        }
        if table:
            lines += [f"### {branch}", "", _table(table), ""]
    intro = "Pictures: a fixed draw of each class, degraded before faces are looked for. Sound: before speech is."
    return "\n".join(["## Degraded", "", intro, "", *lines]).strip() if lines else ""


def _verdicts(clips: Sequence[Row]) -> str:
    rows = [row for row in _clean(clips) if row.verdicts]
    policies = sorted({policy for row in rows for policy in row.verdicts})
    if not policies:
        return ""
    lines = ["## Verdicts", "", "| policy | kind | n | AUTHENTIC | INCONCLUSIVE | DEEPFAKE |", "|---" * 6 + "|"]
    for policy in policies:
        for kind, part in split(rows, lambda row: row.kind).items():
            shares = [
                f"{np.mean([row.verdicts.get(policy) == verdict for row in part]):.0%}"
                for verdict in ("AUTHENTIC", "INCONCLUSIVE", "DEEPFAKE")
            ]
            lines.append(f"| {policy} | {kind} | {len(part)} | " + " | ".join(shares) + " |")
    return "\n".join(lines)


def _slices(measured: Measured) -> str:
    """Figures by what rows say of themselves, and by thirds of face size and brightness."""
    stills = _clean(measured.stills)
    slices: list[tuple[str, str, list[Row]]] = []
    for trait in (SIZE, BRIGHTNESS):
        slices += [("frame", f"{trait} {name}", part) for name, part in _thirds(stills, trait)]
    everything = [("frame", stills), ("audio", _clean(measured.speech)), ("fused", _clean(measured.clips))]
    for branch, rows in everything:
        for trait in SLICED:
            for value, part in split(rows, _text_of(trait)).items():
                slices.append((branch, f"{trait} {value}", part))
    lines = []
    for branch, name, part in slices:
        found = figures(part, branch)
        if "auc" in found and min(sum(r.label for r in part), sum(1 - r.label for r in part)) >= FEWEST:
            lines.append(f"| {branch} | {name} | {len(part)} | {_cell(found['auc'])} | {_cell(found.get('ece'))} |")
    if not lines:
        return ""
    head = ["## Slices", "", "| branch | slice | n | AUC | ECE |", "|---|---|---|---|---|"]
    return "\n".join([*head, *lines])


def _text_of(trait: str) -> Callable[[Row], str]:
    return lambda row: str(row.traits.get(trait, ""))


def _thirds(rows: Sequence[Row], trait: str) -> list[tuple[str, list[Row]]]:
    values = np.array([float(row.traits.get(trait, np.nan)) for row in rows])
    if not np.isfinite(values).any():
        return []
    low, high = np.nanpercentile(values, (33.3, 66.7))
    bands = [
        (f"below {low:.0f}", values < low),
        (f"{low:.0f}–{high:.0f}", (values >= low) & (values < high)),
        (f"{high:.0f} and more", values >= high),
    ]
    return [(name, [row for row, chosen in zip(rows, mask, strict=True) if chosen]) for name, mask in bands]


def _pictures(facts: Facts) -> str:
    shown = [f"![{CAPTIONS[name]}]({name})\n\n{CAPTIONS[name]}." for name in facts.pictures]
    return "\n\n".join(["## Pictures", *shown]) if shown else ""


def _trained_on(facts: Facts) -> str:
    lines = ["## What the models were trained on", ""]
    if facts.shared:
        lines += [SHARED, ""]
    lines += [f"- {line}" for line in facts.statements]
    repository = ModelRepository(facts.models)
    models = (f"{name} `{repository.card(name).sha256[:12]}`" for name in repository.names())
    return "\n".join([*lines, "", f"Models measured: {', '.join(models)}."])
