"""What was aimed at beside what was measured, and what was measured beside it: ensemble and boosted heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.visual.ensemble import FILE
from training.audio.channels import DEGRADATIONS
from training.evaluation.summary import Summary
from training.metrics import Measure


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach: at least ``target`` for areas, at most for errors."""

    words: str
    branch: str
    source: str
    metric: str
    target: float

    @property
    def wants_more(self) -> bool:
        """Whether larger is better."""
        return self.metric == "auc"

    def reached(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.target if self.wants_more else value <= self.target


GOALS = (
    Goal("one picture, DFDC groups never trained on", "frame", "dfdc_faces_val", "auc", 0.90),
    Goal("one picture, sources and methods never seen", "frame", "manipulated_faces_held_out", "auc", 0.80),
    Goal("speech, whole sources never trained on, pooled", "audio", "all", "eer", 0.20),
    Goal("speech, mean within a source", "audio", "within_source_mean", "eer", 0.17),
    Goal("speech, calibration", "audio", "all", "ece", 0.08),
    *(
        Goal(f"speech after {name.replace('_', ' ')}, pooled", "audio", f"degraded_{name}", "eer", 0.30)
        for name in DEGRADATIONS
    ),
    Goal("in sync against swapped, by identity", "sync", "dubbed", "auc", 0.97),
    Goal("verdict, dubbed", "fused", "dubbed", "auc", 0.95),
    Goal("verdict, shifted", "fused", "shifted", "auc", 0.95),
    Goal("verdict, still with speech", "fused", "still_with_speech", "auc", 0.95),
    Goal("verdict, generated or altered faces", "fused", "generated", "auc", 0.75),
    Goal("verdict, calibration", "fused", "all", "ece", 0.05),
)
BOOSTED = {"scores": "boosted, scores alone", "scores_and_statistics": "boosted, with behaviour and cepstra"}
PARTS = ("all", "altered_sound_or_timing", "generated_faces")


def goals(summary: Summary) -> str:
    """Goals beside figures, plainly; a figure that was not measured is left out."""
    lines = ["## Goals", "", "| goal | aimed at | measured | |", "|---|---|---|---|"]
    for goal in GOALS:
        figure = summary.get(goal.branch, {}).get(goal.source, {}).get(goal.metric)
        if figure is not None:
            aim = f"{goal.metric.upper()} {'≥' if goal.wants_more else '≤'} {goal.target:.2f}"
            lines.append(f"| {goal.words} | {aim} | {figure} | {_outcome(goal, figure)} |")
    lines += ["", "What the misses say, and what was tried: [conclusions](conclusions.md), [ideas](unseen-sources.md)."]
    return "\n".join(lines)


def _outcome(goal: Goal, figure: Measure) -> str:
    within = figure.low <= goal.target <= figure.high
    verdict = "reached" if goal.reached(figure.value) else "**not reached**"
    return f"{verdict}, the interval holds both" if within else verdict


def flattered(models: Path) -> frozenset[str]:
    """Names of the sets on which a member of the ensemble learnt, so that figures of FRAME flatter it there."""
    return frozenset(_fitted(models).get("flattered", ()))


def _fitted(models: Path) -> Mapping[str, Any]:
    path = models / FILE
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def ensemble(models: Path) -> str:
    """What the networks over crops weigh, what they cost, and what they gain over the frame classifier alone."""
    content = _fitted(models)
    if not content:
        return ""
    lines = ["## Ensemble", "", f"Weights by `{content['command']}`: {content['split']}.", ""]
    lines += ["| network | weight, familiar crops | weight, others | CPU, ms a crop |", "|---|---|---|---|"]
    for name, cost in content["milliseconds_a_crop"].items():
        weights = [content[own]["weights"].get(name) for own in ("familiar", "unfamiliar")]
        shown = " | ".join("not asked" if weight is None else f"{weight:.3f}" for weight in weights)
        lines.append(f"| {name} | {shown} | {cost:.1f} |")
    lines += ["", f"Cost over the frame classifier alone: {content['cost_over_frame_classifier']:.2f}.", ""]
    lines += ["| held-out crops | frame classifier alone, AUC | ensemble, AUC |", "|---|---|---|"]
    for part, figures in content["metrics"].items():
        alone = content["metrics_frame_classifier_alone"][part]["auc"]
        words = f"{part}, without the members that began there" if part in content["flattered"] else part
        lines.append(f"| {words} | {_shown(alone)} | {_shown(figures['auc'])} |")
    return "\n".join(lines)


def boosted(heads: Path) -> str:
    """The logistic heads beside gradient-boosted ones on the same rows, by what the largest sets of branches are."""
    found = {}
    for path in sorted(heads.glob("*.json")):
        training = json.loads(path.read_text(encoding="utf-8")).get("training", {})
        if "boosted" in training and "note" not in training:
            found[path.stem] = training
    if not found:
        return ""
    wins = [key for key, training in found.items() if training["boosted"]["wins"]]
    lines = ["## Beside the logistic heads: gradient-boosted trees", ""]
    lines += ["XGBoost on the same rows, folds and weights, by `make train-fusion`; all on groups never seen.", ""]
    lines += [
        "Better beyond doubt (lower bound of the gain in AUC above 0, on groups and on whole sources held out) in "
    ]
    lines[-1] += f"{len(wins)} of {len(found)} heads"
    lines[-1] += f" ({', '.join(wins)})" if wins else ""
    lines[-1] += ". The logistic heads are served; why, is in the [conclusions](conclusions.md)."
    lines += [
        "",
        "| head | kind | logistic, AUC | " + " | ".join(f"{name}, AUC" for name in BOOSTED.values()) + " | gain |",
    ]
    lines += ["|---" * (4 + len(BOOSTED)) + "|"]
    for key in sorted(found, key=lambda name: -name.count("_"))[:6]:
        lines += _boosted_rows(key, found[key])
    return "\n".join(lines)


def _boosted_rows(key: str, training: Mapping[str, Any]) -> list[str]:
    lines = []
    for part in PARTS:
        columns = [training["held_out"], *(training["boosted"][name]["held_out"] for name in BOOSTED)]
        if all(part in column for column in columns):
            cells = [_shown(column[part]["auc"]) for column in columns]
            gains = [_gains(training["boosted"][name]) for name in BOOSTED] if part == "all" else []
            lines.append(f"| {key} | {part} | " + " | ".join(cells) + f" | {'; '.join(gains)} |")
    return lines


def _gains(boosted: Mapping[str, Any]) -> str:
    return f"{_shown(boosted['auc_gain'])}, {_shown(boosted['auc_gain_on_sources'])}"


def _shown(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.2f}–{figure['high']:.2f})"
