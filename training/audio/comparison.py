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
from training.audio.evaluation import figures, held_out_splits, source_folds, within_sources
from training.audio.heads import Features, Flags, Floats, cell_weights, fit_calibration
from training.audio.mixture import MixtureSettings
from training.audio.store import FeatureStore
from training.audio.training import Corpus, hold_out
from training.data import data_root

CONDITIONS = (CLEAN, "mp3_32k", "opus_16k", "noise_20db")
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


def network_logits(labels: Labels, table: Mapping[str, Features], schedule: Schedule, seed: int) -> dict[str, Floats]:
    """Held-out log-odds of the network, calibrated over all conditions together."""
    scores = {name: np.zeros(labels.fake.size) for name in table}
    folds = source_folds(labels.utterances, seed)
    for at, (learnt, scored) in enumerate(held_out_splits(labels.utterances, folds)):
        part = label([item for item, chosen in zip(labels.utterances, learnt, strict=True) if chosen])
        network = fit({name: rows[learnt] for name, rows in table.items()}, part.fake, part.weights, schedule, seed)
        for name, rows in table.items():
            scores[name][scored] = score(network, rows[scored])
        _log.info("fold %d of %d is scored", at + 1, len(folds))
    calibration = fit_calibration(
        np.concatenate(list(scores.values())),
        np.tile(labels.fake, len(scores)),
        np.tile(labels.weights, len(scores)),
        MixtureSettings().shrinkage,
    )
    return {name: calibration.apply(values) for name, values in scores.items()}


def report(labels: Labels, models: Mapping[str, Mapping[str, Floats]], facts: str, seed: int) -> str:
    """The page for docs/evaluation."""
    lines = [
        "# Models of speech, compared",
        "",
        (
            f"Made by `{COMMAND}`. {facts} Every model is scored on sources (and speakers) that it was not trained "
            "on; equal error rates in percent with 95 % intervals, a bootstrap over sources."
        ),
        "",
        "| model | sound | held-out sources, pooled | mean within a source | ECE |",
        "|---|---|---|---|---|",
    ]
    for model, logits in models.items():
        for name, values in logits.items():
            pooled = figures(labels.utterances, values, seed)
            within = within_sources(labels.utterances, values, seed)
            rates = [f"{100 * m.value:.1f} ({100 * m.low:.1f}–{100 * m.high:.1f})" for m in (pooled["eer"], within)]
            lines.append(f"| {model} | {name} | {rates[0]} | {rates[1]} | {pooled['ece'].value:.3f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Train both, compare, write the page."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and of everything drawn")
    parser.add_argument("--steps", type=int, default=Schedule().steps, help="training steps of each fold's network")
    parser.add_argument("--cache", type=Path, default=Path(".cache/audio"), help="resumable intermediate results")
    parser.add_argument("--out", type=Path, default=Path("docs/evaluation/audio-models.md"), help="the page")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    labels = label(read_utterances(data_root()))
    cepstra = FeatureStore(options.cache / "cepstra", ExcerptCepstra())
    table = {name: cepstra.features(labels.utterances, name, CHANNELS[name]) for name in CONDITIONS}
    network = network_logits(labels, table, Schedule(steps=options.steps), options.seed)
    statistics = statistics_logits(labels, FeatureStore(options.cache / "features"), options.seed)
    models = {
        "statistics (as served, these four channels alone)": statistics,
        "constant-Q cepstral network": network,
        "mean of both log-odds": {name: (statistics[name] + network[name]) / 2 for name in CONDITIONS},
    }
    facts = f"{len(labels.utterances)} utterances; the network trained for {options.steps} steps a fold."
    options.out.write_text(report(labels, models, facts, options.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
