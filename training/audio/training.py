"""Training the mixture, and scoring every utterance by one that met neither its source nor its speaker."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.audio.channels import CHANNELS, FAMILIES
from training.audio.corpus import Utterance
from training.audio.evaluation import held_out_splits, source_folds
from training.audio.heads import Calibration, Features, Flags, Floats, cell_weights
from training.audio.mixture import (
    Families,
    Mixture,
    MixtureSettings,
    Scored,
    TrainingRows,
    fit_calibrations,
    fit_mixture,
    mixed,
)
from training.audio.store import FeatureStore

_log = logging.getLogger("training.audio")


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is learnt from and tested on: ``table`` holds features by channel, float32 [utterances, features]."""

    utterances: tuple[Utterance, ...]
    table: Mapping[str, Features]
    families: Families


def gather(utterances: Sequence[Utterance], cache: Path) -> Corpus:
    """Features of utterances through every channel; what is not under ``cache`` yet is computed and kept."""
    store = FeatureStore(cache / "features")
    table = {}
    for name, channel in CHANNELS.items():
        table[name] = store.features(utterances, name, channel)
        _log.info("features of %s are ready", name)
    return Corpus(tuple(utterances), table, FAMILIES)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Calibrated log-odds of every utterance by channel, float64 [utterances], and the calibrations."""

    logits: Mapping[str, Floats]
    calibrations: tuple[Calibration, ...]


def train(corpus: Corpus, settings: MixtureSettings) -> Mixture:
    """A mixture trained on everything, not yet calibrated."""
    return _train(corpus, np.ones(len(corpus.utterances), np.bool_), settings)


def hold_out(corpus: Corpus, settings: MixtureSettings, seed: int) -> HeldOut:
    """Cross-validate by source; calibrations come from the scores of held-out sources."""
    return cross_validate(corpus, settings, held_out_splits(corpus.utterances, source_folds(corpus.utterances, seed)))


def cross_validate(corpus: Corpus, settings: MixtureSettings, splits: Iterable[tuple[Flags, Flags]]) -> HeldOut:
    """Score every row by a mixture that was trained without it; ``splits`` name rows to train on and to score."""
    shape = (len(corpus.utterances), len(corpus.families))
    scored = {name: Scored(np.zeros(shape), np.zeros(shape)) for name in corpus.table}
    for learnt, held in splits:
        mixture = _train(corpus, learnt, settings)
        for name, rows in corpus.table.items():
            scored[name].scores[held] = mixture.expert_scores(rows[held])
            scored[name].shares[held] = mixture.gate.shares(rows[held])
    fake = np.array([utterance.fake for utterance in corpus.utterances])
    weights = cell_weights(fake, [utterance.source for utterance in corpus.utterances])
    calibrations = fit_calibrations(scored, fake, weights, corpus.families, settings.shrinkage)
    logits = {name: mixed(part.shares, part.scores, calibrations) for name, part in scored.items()}
    return HeldOut(logits, calibrations)


def _train(corpus: Corpus, rows: Flags, settings: MixtureSettings) -> Mixture:
    learnt = [utterance for utterance, chosen in zip(corpus.utterances, rows, strict=True) if chosen]
    table = {name: features[rows] for name, features in corpus.table.items()}
    fake = np.array([utterance.fake for utterance in learnt])
    weights = cell_weights(fake, [utterance.source for utterance in learnt])
    return fit_mixture(TrainingRows(table, fake, weights), corpus.families, settings)
