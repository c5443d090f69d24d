"""The constant-Q cepstral network beside the statistics: ``python -m training.audio.comparison``.

Both are trained on the same sources and scored on the same held-out ones, through the same channels. What is
written is a table for docs/evaluation; no model is.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training.audio.cepstral_network import ExcerptCepstra, Schedule, fit, score
from training.audio.channels import CHANNELS, CLEAN
from training.audio.corpus import Utterance, read_utterances
from training.audio.evaluation import FOLDS, figures, held_out_splits, source_folds, within_sources
from training.audio.heads import Features, Flags, Floats, cell_weights, fit_calibration
from training.audio.mixture import MixtureSettings
from training.audio.store import FeatureStore
from training.audio.training import Corpus, hold_out
from training.data import data_root

CONDITIONS = (CLEAN, "mp3_32k", "noise_20db")
COMMAND = "python -m training.audio.comparison"
_log = logging.getLogger("training.audio")


@dataclass(frozen=True, slots=True)
class Labels:
    """Utterances with their labels [n] and weights [n]."""

    utterances: tuple[Utterance, ...]
    fake: Flags
    weights: Floats


def label(utterances: Sequence[Utterance]) -> Labels:
    """Labels of utterances, every (label, source) weighing the same within its label."""
    fake = np.array([utterance.fake for utterance in utterances])
    return Labels(tuple(utterances), fake, cell_weights(fake, [utterance.source for utterance in utterances]))


def statistics_logits(labels: Labels, store: FeatureStore, seed: int) -> Mapping[str, Floats]:
    """Held-out log-odds of the served kind of model, with one family for each condition."""
    table = {name: store.features(labels.utterances, name, CHANNELS[name]) for name in CONDITIONS}
    families = {name: (name,) for name in CONDITIONS}
    return hold_out(Corpus(labels.utterances, table, families), MixtureSettings(), seed).logits


@dataclass(frozen=True, slots=True)
class Plan:
    """``folds`` of the ten are scored, since a network takes a while for each."""

    schedule: Schedule
    folds: int
    seed: int


def network_logits(labels: Labels, table: Mapping[str, Features], plan: Plan) -> dict[str, Floats]:
    """Held-out log-odds of the network, calibrated over all conditions together; NaN where no fold was scored."""
    scores = {name: np.full(labels.fake.size, np.nan) for name in table}
    folds = source_folds(labels.utterances, plan.seed)[: plan.folds]
    for at, (learnt, scored) in enumerate(held_out_splits(labels.utterances, folds)):
        part = label([item for item, chosen in zip(labels.utterances, learnt, strict=True) if chosen])
        known = {name: rows[learnt] for name, rows in table.items()}
        network = fit(known, part.fake, part.weights, plan.schedule, plan.seed)
        for name, rows in table.items():
            scores[name][scored] = score(network, rows[scored])
        _log.info("fold %d of %d is scored", at + 1, len(folds))
    done = np.isfinite(scores[CLEAN])
    calibration = fit_calibration(
        np.concatenate([values[done] for values in scores.values()]),
        np.tile(labels.fake[done], len(scores)),
        np.tile(labels.weights[done], len(scores)),
        MixtureSettings().shrinkage,
    )
    return {name: calibration.apply(values) for name, values in scores.items()}


def report(labels: Labels, models: Mapping[str, Mapping[str, Floats]], scored: Flags, facts: str, seed: int) -> str:
    """The page for docs/evaluation, from the rows that every model scored."""
    lines = [
        "# Models of speech, compared",
        "",
        (
            f"{facts} Every model is scored on sources (and speakers) that it was not trained on, and is trained "
            "through the channels of the table. Equal error rates in percent with 95 % intervals, a bootstrap "
            "over sources."
        ),
        "",
        "| model | sound | held-out sources, pooled | mean within a source | ECE |",
        "|---|---|---|---|---|",
    ]
    for model, logits in models.items():
        for name, every in logits.items():
            rows = np.flatnonzero(scored)
            utterances, values = [labels.utterances[row] for row in rows], every[rows]
            pooled = figures(utterances, values, seed)
            within = within_sources(utterances, values, seed)
            rates = [f"{100 * m.value:.1f} ({100 * m.low:.1f}–{100 * m.high:.1f})" for m in (pooled["eer"], within)]
            lines.append(f"| {model} | {name} | {rates[0]} | {rates[1]} | {pooled['ece'].value:.3f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Train both, compare, write the page."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and of everything drawn")
    parser.add_argument("--steps", type=int, default=Schedule().steps, help="training steps of each fold's network")
    parser.add_argument("--folds", type=int, default=FOLDS, help="how many of the ten folds of sources to score")
    parser.add_argument("--cache", type=Path, default=Path(".cache/audio"), help="resumable intermediate results")
    parser.add_argument("--out", type=Path, default=Path("docs/evaluation/audio-models.md"), help="the page")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    labels = label(read_utterances(data_root()))
    cepstra = FeatureStore(options.cache / "cepstra", ExcerptCepstra())
    table = {name: cepstra.features(labels.utterances, name, CHANNELS[name]) for name in CONDITIONS}
    network = network_logits(labels, table, Plan(Schedule(steps=options.steps), options.folds, options.seed))
    statistics = statistics_logits(labels, FeatureStore(options.cache / "features"), options.seed)
    models = {
        "statistics and linear experts": statistics,
        "constant-Q cepstral network": network,
        "mean of both log-odds": {name: (statistics[name] + network[name]) / 2 for name in CONDITIONS},
    }
    scored = np.isfinite(network[CLEAN])
    facts = (
        f"Made by `{COMMAND} --folds {options.folds} --steps {options.steps} --seed {options.seed}`: "
        f"{scored.sum()} of {scored.size} utterances scored, in {options.folds} of {FOLDS} folds of sources."
    )
    options.out.write_text(report(labels, models, scored, facts, options.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
