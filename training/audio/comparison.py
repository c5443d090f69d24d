"""Other models of speech beside the served one: ``python -m training.audio.comparison``.

All are scored on sources that they were not trained on, through the same channels: the statistics, as served; a
constant-Q cepstral network; and published networks as they are. The statistics are also scored on spoofing systems
that they were not trained on. What is written is a page for docs/evaluation; no model is.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from training.audio.cepstral_network import ExcerptCepstra, Schedule, fit, score
from training.audio.channels import CHANNELS, CLEAN
from training.audio.corpus import Utterance, read_utterances
from training.audio.evaluation import (
    FEWEST_PER_CLASS,
    figures,
    held_out_splits,
    held_out_system_splits,
    source_folds,
    within_sources,
)
from training.audio.heads import Features, Flags, Floats, cell_weights, fit_calibration
from training.audio.mixture import MixtureSettings
from training.audio.store import FeatureStore
from training.audio.training import cross_validate, gather, hold_out
from training.checkpoints.catalogue import ARCHITECTURES, built
from training.checkpoints.export import served_graph
from training.data import data_root

CONDITIONS = (CLEAN, "mp3_32k", "noise_20db")
PUBLISHED = {"AASIST": "aasist", "AASIST-L": "aasist-l"}
"""Files under ``checkpoints`` of the data, and their architectures."""
PUBLISHED_CONDITIONS = (CLEAN,)
"""They take most of a second of one core for each utterance, and nothing here teaches them other sound."""
COMMAND = "python -m training.audio.comparison"
STATISTICS = "statistics and linear experts, as served"
_log = logging.getLogger("training.audio")

HAND_WRITTEN = "## What was tried"
"""Heading from which on the page is kept."""

Scores = Mapping[str, Floats]
"""By condition, scores of all utterances; NaN where there is none."""


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


def network_logits(labels: Labels, table: Mapping[str, Features], schedule: Schedule, seed: int) -> Scores:
    """Held-out log-odds of the network, calibrated over all conditions together."""
    scores = {name: np.zeros(labels.fake.size) for name in table}
    folds = source_folds(labels.utterances, seed)
    for at, (learnt, scored) in enumerate(held_out_splits(labels.utterances, folds)):
        part = label([item for item, chosen in zip(labels.utterances, learnt, strict=True) if chosen])
        known = {name: rows[learnt] for name, rows in table.items()}
        network = fit(known, part.fake, part.weights, schedule, seed)
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


def few_of_each(utterances: Sequence[Utterance], most: int) -> Flags:
    """At most so many of every (label, source), by their keys, which are as good as drawn: bool [n]."""
    seen: Counter[tuple[bool, str]] = Counter()
    chosen = np.zeros(len(utterances), np.bool_)
    for at in sorted(range(len(utterances)), key=lambda row: utterances[row].key):
        cell = (utterances[at].fake, utterances[at].source)
        chosen[at] = seen[cell] < most
        seen[cell] += 1
    return chosen


def published_scores(labels: Labels, chosen: Flags, name: str, cache: Path) -> Scores:
    """Log-odds of a published network as it is, on the chosen rows; NaN on others."""
    architecture = ARCHITECTURES[PUBLISHED[name]]
    network = built(architecture, data_root() / "checkpoints" / f"{name}.pth")
    store = FeatureStore(cache / "published" / name, served_graph(network, architecture, architecture.size))
    heard = [labels.utterances[row] for row in np.flatnonzero(chosen)]
    scores = {}
    for condition in PUBLISHED_CONDITIONS:
        scores[condition] = np.full(labels.fake.size, np.nan)
        scores[condition][chosen] = store.features(heard, condition, CHANNELS[condition])[:, 0]
        _log.info("%s is scored through %s", name, condition)
    return scores


def table(labels: Labels, models: Mapping[str, Scores], chosen: Flags, seed: int) -> Iterator[str]:
    """Rows of a table in Markdown, over the chosen utterances."""
    yield "| model | sound | pooled | mean within a source | ECE |"
    yield "|---|---|---|---|---|"
    rows = np.flatnonzero(chosen)
    utterances = [labels.utterances[row] for row in rows]
    cells = Counter((item.fake, item.source) for item in utterances)
    enough = any(min(cells[True, name], cells[False, name]) >= FEWEST_PER_CLASS for _, name in cells)
    for model, scores in models.items():
        for name, every in scores.items():
            pooled = figures(utterances, every[rows], seed)
            within = within_sources(utterances, every[rows], seed) if enough else None
            rates = [
                "too few" if m is None else f"{100 * m.value:.1f} ({100 * m.low:.1f}–{100 * m.high:.1f})"
                for m in (pooled["eer"], within)
            ]
            error = "not calibrated" if model in PUBLISHED else f"{pooled['ece'].value:.3f}"
            yield f"| {model} | {name} | {rates[0]} | {rates[1]} | {error} |"


def report(sections: Mapping[str, Sequence[str]], command: str, written: str) -> str:
    """The page for docs/evaluation; ``written`` by hand stays at its end."""
    lines = [
        "# Models of speech, compared",
        "",
        f"Made by `{command}`. Equal error rates in percent with 95 % intervals, a bootstrap over sources.",
    ]
    for title, part in sections.items():
        lines += ["", f"## {title}", "", *part]
    return "\n".join([*lines, "", written])


def by_hand(page: Path) -> str:
    """What a page holds from ``HAND_WRITTEN`` on."""
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    at = before.find(HAND_WRITTEN)
    return before[at:] if at >= 0 else ""


SOURCES = (
    "All {n} utterances, in ten folds of sources: every model is scored on sources (and speakers) that it was not "
    "trained on. The statistics learn from every channel, as served; the network from those of the table."
)
FEW = (
    "Utterances of each class and source: at most {most}; in all {n}. The published networks are used as they are, "
    "with the weights of their authors, who trained on other data; sound is prepared as for the served model."
)
SYSTEMS = (
    "The same statistics, in ten folds of spoofing systems and of recorded speakers: whole systems are held out, while "
    "other systems of the same source may be trained on. What this gains is knowledge of the source."
)


def main() -> None:
    """Train, score, compare, write the page."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and of everything drawn")
    parser.add_argument("--steps", type=int, default=Schedule().steps, help="training steps of each fold's network")
    parser.add_argument("--most", type=int, default=1, help="utterances of a class and source for published networks")
    parser.add_argument("--cache", type=Path, default=Path(".cache/audio"), help="resumable intermediate results")
    parser.add_argument("--out", type=Path, default=Path("docs/evaluation/audio-models.md"), help="the page")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    labels = label(read_utterances(data_root()))
    every, few = np.ones(labels.fake.size, np.bool_), few_of_each(labels.utterances, options.most)
    published = {name: published_scores(labels, few, name, options.cache) for name in PUBLISHED}
    cepstra = FeatureStore(options.cache / "cepstra", ExcerptCepstra())
    sounds = {name: cepstra.features(labels.utterances, name, CHANNELS[name]) for name in CONDITIONS}
    network = network_logits(labels, sounds, Schedule(steps=options.steps), options.seed)
    corpus, settings = gather(labels.utterances, options.cache), MixtureSettings()
    held_out = hold_out(corpus, settings, options.seed).logits
    statistics = {name: held_out[name] for name in CONDITIONS}
    by_system = cross_validate(corpus, settings, held_out_system_splits(labels.utterances, options.seed)).logits
    compared = {
        STATISTICS: statistics,
        "constant-Q cepstral network": network,
        "mean of both log-odds": {name: (statistics[name] + network[name]) / 2 for name in CONDITIONS},
    }
    beside = {STATISTICS: {name: statistics[name] for name in PUBLISHED_CONDITIONS}, **published}
    systems = {STATISTICS: {name: by_system[name] for name in CONDITIONS}}
    seed = options.seed
    sections = {
        "Sources held out": [SOURCES.format(n=every.sum()), "", *table(labels, compared, every, seed)],
        "Published networks": [FEW.format(most=options.most, n=few.sum()), "", *table(labels, beside, few, seed)],
        "Systems held out": [SYSTEMS, "", *table(labels, systems, every, seed)],
    }
    command = f"{COMMAND} --steps {options.steps} --most {options.most} --seed {seed}"
    options.out.write_text(report(sections, command, by_hand(options.out)), encoding="utf-8")


if __name__ == "__main__":
    main()
