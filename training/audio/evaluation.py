"""Scores of utterances by models that never met their source or speaker, and figures from them."""

from __future__ import annotations

from collections import Counter
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
    dealt = _dealt([utterance.source for utterance in utterances], seed, folds)
    return [frozenset(name for name, at in dealt.items() if at == fold) for fold in range(folds)]


def held_out_splits(utterances: Sequence[Utterance], folds: Sequence[frozenset[str]]) -> Iterator[tuple[Flags, Flags]]:
    """Which rows to train on and which to score, fold by fold.

    Rows that share a source *or a speaker* with those to score are never trained on.
    """
    for fold in folds:
        scored = np.array([utterance.source in fold for utterance in utterances])
        speakers = {utterance.speaker for utterance in utterances if utterance.source in fold}
        yield np.array([item.source not in fold and item.speaker not in speakers for item in utterances]), scored


def held_out_system_splits(
    utterances: Sequence[Utterance], seed: int, folds: int = FOLDS
) -> Iterator[tuple[Flags, Flags]]:
    """Like ``held_out_splits``, with whole spoofing systems held out instead of sources.

    Each fold scores the fakes of some systems and the recordings of some speakers. Sources are known: other
    systems and other speakers of the same pages may be among the rows to train on, which is what makes this
    the easier question. No speaker of a scored recording is trained on, in recordings or in fakes.
    """
    systems = _dealt([item.system for item in utterances if item.fake], seed, folds)
    speakers = _dealt([item.speaker for item in utterances if not item.fake], seed, folds)
    for at in range(folds):
        scored = [systems[item.system] == at if item.fake else speakers[item.speaker] == at for item in utterances]
        learnt = [
            (not item.fake or systems[item.system] != at) and speakers.get(item.speaker) != at for item in utterances
        ]
        yield np.array(learnt), np.array(scored)


def _dealt(names: Sequence[str], seed: int, folds: int) -> dict[str, int]:
    """Each distinct name's fold, folds of about equal size."""
    sizes = Counter(names)
    distinct = sorted(sizes)
    np.random.default_rng(seed).shuffle(distinct)
    distinct.sort(key=lambda name: -sizes[name])
    load = [0] * folds
    dealt: dict[str, int] = {}
    for name in distinct:
        dealt[name] = int(np.argmin(load))
        load[dealt[name]] += sizes[name]
    return dealt


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
