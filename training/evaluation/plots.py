"""The pictures of a report: ROC overlays, score distributions, reliability, confusion, robustness, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.clips import CODED
from training.evaluation.curves import calibration, confusion, roc
from training.evaluation.degradation import NOISE_CURVE, PICTURE_CONDITIONS
from training.evaluation.rows import BRANCHES, CLEAN, FUSED, GENERATED, REAL, Columns, Row, columns, split
from training.evaluation.summary import ALL, DEGRADED, UNDEGRADED, Measured, Summary
from training.metrics import auc

mpl.use("Agg")
SIZE = 3.4
PANELS_A_LINE = 4
CODECS = ("mp3", "aac", "opus")
ALTERED_SOUND = frozenset({"dubbed", "shifted", "still_with_speech"})
COLOURS = ("tab:blue", "tab:red")
Curves = dict[str, dict[str, list[tuple[float, float]]]]
"""Title of a panel → name of a line → (strength, AUC)."""


def draw(measured: Measured, summary: Summary, folder: Path) -> list[str]:
    """Write every picture that the rows allow.

    Returns:
        File names, in the order of the report.
    """
    parts, whole = _parts(measured), _whole(measured)
    drawn = [
        _branch_grid(parts, folder / "roc.png", _draw_roc),
        _branch_grid(whole, folder / "scores.png", _draw_scores),
        _branch_grid(whole, folder / "reliability.png", _draw_reliability),
        _branch_grid(whole, folder / "confusion.png", _draw_confusion),
        _ablation(measured.clips, folder / "ablation.png"),
        _robustness(measured, summary, folder / "robustness.png"),
        _verdicts(measured.clips, folder / "verdicts.png"),
    ]
    return [path.name for path in drawn if path is not None]


def _parts(measured: Measured) -> dict[str, dict[str, Columns]]:
    """Branch → what is shown of it (set, or kind of clip) → its columns."""
    clean = [row for row in (*measured.stills, *measured.speech) if row.condition == CLEAN]
    clips = [row for row in measured.clips if row.condition == CLEAN]
    reals = [row for row in clips if row.kind == REAL]
    found: dict[str, dict[str, Columns]] = {}
    for branch in BRANCHES:
        shown = {name: columns(rows, branch) for name, rows in split(clean, lambda row: row.collection).items()}
        for kind, rows in split(clips, lambda row: "" if row.kind == REAL else row.kind).items():
            shown[f"clips, {kind}"] = columns([*reals, *rows], branch)
        shown = {name: value for name, value in shown.items() if value.has_both}
        if shown:
            found[branch] = shown
    return found


def _whole(measured: Measured) -> dict[str, dict[str, Columns]]:
    """Branch → all that it was measured on, each row once: what ``all`` means in the summary."""
    found: dict[str, dict[str, Columns]] = {}
    for branch in BRANCHES:
        for rows in ((*measured.stills, *measured.speech), measured.clips):
            part = columns((row for row in rows if row.condition == CLEAN), branch)
            if part.labels.size:
                found[branch] = {ALL: part}
                break
    return found


def _branch_grid(
    parts: Mapping[str, Mapping[str, Columns]], path: Path, fill: Callable[[Axes, Mapping[str, Columns]], None]
) -> Path | None:
    """One panel a branch."""
    if not parts:
        return None
    figure = Figure(figsize=(SIZE * len(parts), SIZE), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(parts))))
    for panel, (branch, shown) in zip(panels, parts.items(), strict=True):
        panel.set_title(branch)
        fill(panel, shown)
    figure.savefig(path, dpi=110)
    return path


def _draw_roc(panel: Axes, shown: Mapping[str, Columns]) -> None:
    for name, part in shown.items():
        false_positive, true_positive = roc(part.labels, part.scores)
        panel.plot(false_positive, true_positive, label=name, linewidth=1)
    panel.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=0.8)
    panel.set_xlabel("real called fake")
    panel.set_ylabel("fake called fake")
    panel.legend(fontsize=5, loc="lower right")


def _only(shown: Mapping[str, Columns]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    part = next(iter(shown.values()))
    return part.labels, part.scores


def _draw_scores(panel: Axes, shown: Mapping[str, Columns]) -> None:
    labels, scores = _only(shown)
    for label, name in enumerate(("real", "fake")):
        chosen = scores[labels == label]
        weights = np.full(chosen.size, 1 / max(chosen.size, 1))
        panel.hist(chosen, bins=25, range=(0, 1), weights=weights, histtype="step", color=COLOURS[label], label=name)
    panel.set_xlabel("P(deepfake)")
    panel.set_ylabel("share of the class")
    panel.legend(fontsize=6)


def _draw_reliability(panel: Axes, shown: Mapping[str, Columns]) -> None:
    labels, scores = _only(shown)
    predicted, observed, weight = calibration(labels, scores)
    panel.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=0.8)
    panel.plot(predicted, observed, color="tab:blue", linewidth=1)
    panel.scatter(predicted, observed, s=10 + 200 * weight, color="tab:blue", alpha=0.6)
    panel.set_xlabel("P(deepfake), mean of the bin")
    panel.set_ylabel("share that is fake")


def _draw_confusion(panel: Axes, shown: Mapping[str, Columns]) -> None:
    table = confusion(*_only(shown))
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    panel.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row in range(2):
        for column in range(2):
            tone = "white" if shares[row, column] > 0.6 else "black"
            panel.text(column, row, str(table[row, column]), ha="center", va="center", color=tone)
    panel.set_xticks([0, 1], ["called real", "called fake"], fontsize=7)
    panel.set_yticks([0, 1], ["real", "fake"], fontsize=7)


def _ablation(clips: Sequence[Row], path: Path) -> Path | None:
    """ROC of the heads of each set of branches: generated faces above, altered sound or timing below."""
    rows = [row for row in clips if row.condition == CLEAN and row.subsets]
    reals = [row for row in rows if row.kind == REAL]
    altered = {
        "generated faces": [row for row in rows if row.kind == GENERATED],
        "altered sound or timing": [row for row in rows if row.kind in ALTERED_SOUND],
    }
    altered = {name: part for name, part in altered.items() if part}
    if not reals or not altered:
        return None
    sizes = sorted({key.count("+") + 1 for row in rows for key in row.subsets})
    figure = Figure(figsize=(SIZE * len(sizes), SIZE * len(altered)), layout="constrained")
    panels = np.asarray(figure.subplots(len(altered), len(sizes), squeeze=False))
    for line, (title, fakes) in enumerate(altered.items()):
        for place, size in enumerate(sizes):
            panel = panels[line, place]
            panel.set_title(f"{title}: {size} of 5 branches", fontsize=8)
            _draw_subsets(panel, [*reals, *fakes], size)
    figure.savefig(path, dpi=110)
    return path


def _draw_subsets(panel: Axes, rows: Sequence[Row], size: int) -> None:
    keys = sorted({key for row in rows for key in row.subsets if key.count("+") + 1 == size})
    for key in keys:
        chosen = [row for row in rows if key in row.subsets]
        labels = np.array([row.label for row in chosen])
        if 0 < labels.sum() < labels.size:
            panel.plot(*roc(labels, np.array([row.subsets[key] for row in chosen])), label=key, linewidth=0.9)
    panel.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=0.8)
    panel.set_xlabel("real called fake", fontsize=6)
    panel.set_ylabel("fake called fake", fontsize=6)
    panel.legend(fontsize=4.5, loc="lower right")


def _robustness(measured: Measured, summary: Summary, path: Path) -> Path | None:
    """AUC against the strength of each degradation."""
    curves = _picture_curves(summary) | _sound_curves(summary)
    coded = _coded_clips(measured.clips)
    if coded:
        curves["clips: H.264 rate factor"] = coded
    if not curves:
        return None
    lines_of_panels = -(-len(curves) // PANELS_A_LINE)
    figure = Figure(figsize=(SIZE * min(len(curves), PANELS_A_LINE), SIZE * lines_of_panels), layout="constrained")
    panels = [figure.add_subplot(lines_of_panels, min(len(curves), PANELS_A_LINE), at + 1) for at in range(len(curves))]
    for panel, (title, lines) in zip(panels, curves.items(), strict=True):
        panel.set_title(title, fontsize=8)
        for name, points in lines.items():
            panel.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=name)
            branch = summary.get(name, {})
            clean = branch.get(UNDEGRADED, branch.get(ALL, {})).get("auc")
            if clean is not None and not title.startswith("clips"):
                panel.axhline(clean.value, linestyle=":", linewidth=0.8, color="grey")
        panel.set_ylim(0.4, 1)
        panel.set_ylabel("AUC")
        panel.legend(fontsize=6)
    figure.savefig(path, dpi=110)
    return path


def _degraded_auc(summary: Summary, branch: str, condition: str) -> float | None:
    found = summary.get(branch, {}).get(f"{DEGRADED}{condition}", {}).get("auc")
    return found.value if found is not None else None


def _picture_curves(summary: Summary) -> Curves:
    curves: Curves = {}
    for branch in ("frame", "patch"):
        for condition in PICTURE_CONDITIONS:
            value = _degraded_auc(summary, branch, condition.name)
            if value is not None:
                curves.setdefault(condition.curve, {}).setdefault(branch, []).append((condition.strength, value))
    return curves


def _sound_curves(summary: Summary) -> Curves:
    points = [("speech: noise, SNR (dB)", "audio", decibels, name) for decibels, name in NOISE_CURVE.items()]
    points += [("speech: codec (kbit/s)", codec, rate, f"{codec}_{rate}k") for codec in CODECS for rate in (16, 32)]
    curves: Curves = {}
    for title, line, strength, name in points:
        value = _degraded_auc(summary, "audio", name)
        if value is not None:
            curves.setdefault(title, {}).setdefault(line, []).append((strength, value))
    return curves


def _coded_clips(clips: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Branch → (rate factor, AUC) over the clips that were re-encoded."""
    lines: dict[str, list[tuple[float, float]]] = {}
    coded = (row for row in clips if row.condition.startswith(CODED))
    for condition, rows in split(coded, lambda row: row.condition).items():
        for branch in ("frame", "patch", "temporal", FUSED):
            found = columns(rows, branch)
            if found.has_both:
                factor = float(condition.rpartition("_")[2])
                lines.setdefault(branch, []).append((factor, auc(found.labels, found.scores)))
    return lines


def _verdicts(clips: Sequence[Row], path: Path) -> Path | None:
    """Shares of the three verdicts, by kind of clip and policy."""
    rows = [row for row in clips if row.condition == CLEAN and row.verdicts]
    policies = sorted({policy for row in rows for policy in row.verdicts})
    if not policies:
        return None
    kinds = list(split(rows, lambda row: row.kind).items())
    figure = Figure(figsize=(SIZE * len(policies), SIZE), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(policies))))
    for panel, policy in zip(panels, policies, strict=True):
        left = np.zeros(len(kinds))
        for verdict, colour in (("AUTHENTIC", "tab:blue"), ("INCONCLUSIVE", "lightgrey"), ("DEEPFAKE", "tab:red")):
            shares = np.array([np.mean([row.verdicts.get(policy) == verdict for row in part]) for _, part in kinds])
            panel.barh([kind for kind, _ in kinds], shares, left=left, color=colour, label=verdict)
            left += shares
        panel.set_title(policy)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=6)
    figure.savefig(path, dpi=110)
    return path
