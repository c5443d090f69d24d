"""Scores of utterances by models that never met their source or speaker, and figures from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from training.audio.corpus import Utterance
from training.metrics import Measure, bootstrap, equal_error_rate, measure

FOLDS = 10
FEWEST_PER_CLASS = 5

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def source_folds(utterances: Sequence[Utterance], seed: int, folds: int = FOLDS) -> list[frozenset[str]]:
    """Sources dealt into folds of about equal size, largest first, ties by a seeded shuffle."""
    sizes: dict[str, int] = {}
    for utterance in utterances:
        sizes[utterance.source] = sizes.get(utterance.source, 0) + 1
    names = sorted(sizes)
    np.random.default_rng(seed).shuffle(names)
    names.sort(key=lambda name: -sizes[name])
    dealt: list[set[str]] = [set() for _ in range(folds)]
    for name in names:
        min(dealt, key=lambda fold: sum(sizes[other] for other in fold)).add(name)
    return [frozenset(fold) for fold in dealt]


def held_out_splits(utterances: Sequence[Utterance], folds: Sequence[frozenset[str]]) -> Iterator[tuple[Flags, Flags]]:
    """Which rows to train on and which to score, fold by fold.

    Rows that share a source *or a speaker* with those to score are never trained on.
    """
    for fold in folds:
        scored = np.array([utterance.source in fold for utterance in utterances])
        speakers = {utterance.speaker for utterance in utterances if utterance.source in fold}
        yield np.array([item.source not in fold and item.speaker not in speakers for item in utterances]), scored


def within_sources(utterances: Sequence[Utterance], scores: Floats, seed: int) -> Measure:
    """Mean equal error rate over sources that hold at least five of each class; bootstrap over sources."""
    fake = np.array([utterance.fake for utterance in utterances])
    sources = np.array([utterance.source for utterance in utterances])
    rates: dict[str, float] = {}
    for name in np.unique(sources):
        rows = sources == name
        if min(fake[rows].sum(), (~fake[rows]).sum()) >= FEWEST_PER_CLASS:
            rates[str(name)] = equal_error_rate(fake[rows], scores[rows])
    values = np.array(list(rates.values()))
    return bootstrap(np.zeros(values.size), values, list(rates), lambda rows: float(values[rows].mean()), seed=seed)


def figures(utterances: Sequence[Utterance], logits: Floats, seed: int) -> dict[str, Measure]:
    """All figures of calibrated log-odds; bootstrap over sources."""
    fake = np.array([utterance.fake for utterance in utterances])
    return measure(fake, probability(logits), [utterance.source for utterance in utterances], seed=seed)


def figures_by_source(utterances: Sequence[Utterance], logits: Floats, seed: int) -> dict[str, dict[str, Measure]]:
    """Figures inside each source with at least five of each class; bootstrap over speakers."""
    found: dict[str, dict[str, Measure]] = {}
    for source in sorted({utterance.source for utterance in utterances}):
        rows = [index for index, utterance in enumerate(utterances) if utterance.source == source]
        fake = np.array([utterances[index].fake for index in rows])
        if min(fake.sum(), (~fake).sum()) >= FEWEST_PER_CLASS:
            speakers = [utterances[index].speaker for index in rows]
            found[source] = measure(fake, probability(logits[rows]), speakers, seed=seed)
    return found


def probability(logits: Floats) -> Floats:
    """Log-odds to P(deepfake)."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -50.0, 50.0))))
