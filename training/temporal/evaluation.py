"""Scores of clips by members that never met their source or identity, and how members are weighed by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from training.calibration import Line, fit_line
from training.metrics import Measure, measure
from training.temporal.corpus import ClipRows
from training.temporal.fitting import Member

Floats = npt.NDArray[np.float64]
Fit = Callable[[Sequence[ClipRows], int], list[Member]]
FOLDS = 4
REPEATS = 3
FEWEST_PER_METHOD = 5
SHRINKAGE = 0.8
"""Factor on calibrated log-odds: unseen sources are harder than those that calibration saw."""


def source_folds(clips: Sequence[ClipRows], seed: int) -> list[frozenset[str]]:
    """Sources dealt into folds, those of real clips and those of fakes alone each evenly, largest first."""
    sizes: dict[tuple[bool, str], int] = {}
    fakes_only = {clip.source for clip in clips} - {clip.source for clip in clips if not clip.fake}
    for clip in clips:
        key = (clip.source in fakes_only, clip.source)
        sizes[key] = sizes.get(key, 0) + 1
    names = sorted(sizes)
    np.random.default_rng(seed).shuffle(names)
    names.sort(key=lambda name: -sizes[name])
    dealt: list[list[tuple[bool, str]]] = [[] for _ in range(FOLDS)]
    for name in names:
        min(dealt, key=lambda fold: sum(sizes[other] for other in fold if other[0] == name[0])).append(name)
    return [frozenset(source for _, source in fold) for fold in dealt]


def held_out(clips: Sequence[ClipRows], sources: frozenset[str]) -> tuple[list[int], list[int]]:
    """Places of the clips to learn from and to score: no source and no identity on both sides."""
    scored = [place for place, clip in enumerate(clips) if clip.source in sources]
    groups = {clips[place].group for place in scored}
    learnt = [place for place, clip in enumerate(clips) if clip.source not in sources and clip.group not in groups]
    return learnt, scored


def out_of_fold(clips: Sequence[ClipRows], fit: Fit, seed: int) -> dict[str, Floats]:
    """Mean score of every clip by each member over several dealings of folds; [clips] by member.

    Each fit's scores are divided by their deviation on what it learnt from, so that fits compare.
    """
    total: dict[str, Floats] = {}
    for repeat in range(REPEATS):
        for sources in source_folds(clips, seed + repeat):
            learnt, scored = held_out(clips, sources)
            for name, scores in fold_scores([clips[place] for place in learnt], clips, scored, fit, seed).items():
                total.setdefault(name, np.zeros(len(clips)))[scored] += scores / REPEATS
    return total


def fold_scores(
    learnt: Sequence[ClipRows], clips: Sequence[ClipRows], scored: Sequence[int], fit: Fit, seed: int
) -> dict[str, Floats]:
    """Scores of some clips by members that learnt from others, members of one kind averaged."""
    found: dict[str, list[Floats]] = {}
    for member in fit(learnt, seed):
        scale = spread(member, learnt)
        scores = np.array([member.score(clips[place]) for place in scored]) / scale
        found.setdefault(member.kind, []).append(scores)
    return {name: np.mean(scores, axis=0) for name, scores in found.items()}


def spread(member: Member, clips: Sequence[ClipRows]) -> float:
    """Deviation of a member's scores over clips."""
    return float(np.std([member.score(clip) for clip in clips])) + 1e-9


@dataclass(frozen=True, slots=True)
class Blend:
    """How kinds of members are weighed, and the calibration of their sum."""

    weights: Mapping[str, float]
    line: Line

    def logits(self, scores: Mapping[str, Floats]) -> Floats:
        """Calibrated log-odds of out-of-fold scores."""
        total = np.sum([weight * scores[name] for name, weight in self.weights.items()], axis=0)
        return SHRINKAGE * self.line.log_odds(total)


def fit_blend(clips: Sequence[ClipRows], scores: Mapping[str, Floats], weights: Mapping[str, float]) -> Blend:
    """Calibrate a weighted sum of out-of-fold scores, every source weighing the same within its class."""
    total = np.sum([weight * scores[name] for name, weight in weights.items()], axis=0)
    line = fit_line(total, [clip.fake for clip in clips], [clip.source for clip in clips])
    return Blend(weights, line)


def figures(clips: Sequence[ClipRows], logits: Floats, seed: int) -> dict[str, dict[str, Measure]]:
    """Figures over all clips, inside the largest source and outside it, and of each method against all real clips."""
    names = [clip.source for clip in clips]
    largest = max(sorted(set(names)), key=names.count)
    inside = np.array([name == largest for name in names])
    real = np.array([not clip.fake for clip in clips])
    chosen: dict[str, npt.NDArray[np.bool_]] = {
        "all": np.ones(len(clips), np.bool_),
        largest: inside,
        f"all but {largest}": ~inside,
    }
    for method in sorted({clip.method for clip in clips if clip.fake}):
        of_method = np.array([clip.method == method and bool(clip.fake) for clip in clips])
        if of_method.sum() >= FEWEST_PER_METHOD:
            chosen[method] = real | of_method
    return {name: _figures(clips, logits, rows, seed) for name, rows in chosen.items()}


def _figures(clips: Sequence[ClipRows], logits: Floats, rows: npt.NDArray[np.bool_], seed: int) -> dict[str, Measure]:
    places = np.flatnonzero(rows).tolist()
    labels, groups = [clips[place].fake for place in places], [clips[place].group for place in places]
    return measure(labels, expit(logits[places]), groups, seed=seed)
