"""From the speech sets to ``model_repository/spoof_classifier``: ``python -m training.audio --seed 0``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from services.audio.pipeline import SPOOF_MODEL
from training.audio.channels import CHANNELS, CLEAN, DEGRADATIONS, FAMILIES, SOUNDTRACKS
from training.audio.corpus import SETS, read_utterances
from training.audio.evaluation import figures, figures_by_source, within_sources
from training.audio.export import MixtureGraph, SpoofClassifier, export
from training.audio.mixture import Mixture, MixtureSettings
from training.audio.training import Corpus, HeldOut, gather, hold_out, train
from training.cards import Card, write_card
from training.data import data_root
from training.metrics import Measure

_log = logging.getLogger("training.audio")
Metrics = dict[str, dict[str, Measure]]


def main() -> None:
    """Train, measure by held-out source, export, and write the card."""
    parser = argparse.ArgumentParser(prog="python -m training.audio", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and of everything drawn")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="where the model goes")
    parser.add_argument("--cache", type=Path, default=Path(".cache/audio"), help="resumable intermediate results")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    corpus = gather(read_utterances(data_root()), options.cache)
    settings = MixtureSettings()
    held_out = hold_out(corpus, settings, options.seed)
    metrics = measure_all(corpus, held_out, options.seed)
    for source in (*CHANNELS, "within_source_mean"):
        _log.info("%s %s", source, {name: str(figure) for name, figure in metrics[source].items()})
    mixture = train(corpus, settings).calibrated(held_out.calibrations)
    publish(mixture, corpus, metrics, options)


def measure_all(corpus: Corpus, held_out: HeldOut, seed: int) -> Metrics:
    """Figures through every channel; and of clean sound the mean within a source and each source's own."""
    utterances = corpus.utterances
    metrics: Metrics = {name: figures(utterances, logits, seed) for name, logits in held_out.logits.items()}
    metrics["all"] = metrics[CLEAN]
    metrics["within_source_mean"] = {
        "eer": within_sources(utterances, held_out.logits[CLEAN], seed),
    }
    for name in (*SOUNDTRACKS, *DEGRADATIONS):
        metrics[f"within_source_mean_{name}"] = {"eer": within_sources(utterances, held_out.logits[name], seed)}
    return metrics | figures_by_source(utterances, held_out.logits[CLEAN], seed)


def publish(mixture: Mixture, corpus: Corpus, metrics: Metrics, options: argparse.Namespace) -> None:
    """Export the model and write its card."""
    export(SpoofClassifier(MixtureGraph(mixture)), options.repository)
    pooled, within = metrics["all"]["eer"], metrics["within_source_mean"]["eer"]
    sources = len({utterance.source for utterance in corpus.utterances})
    card = Card(
        name=SPOOF_MODEL,
        task="log-odds of synthetic speech in up to 6 s of prepared speech",
        trained_on=f"{len(corpus.utterances)} utterances of {sources} sources ({', '.join(SETS)}), "
        f"each through {len(CHANNELS)} channels",
        headline=f"equal error rate {pooled} pooled and {within} mean within a source, on held-out sources",
        data=list(SETS),
        split="cross-validation in 10 folds of sources; no source and no speaker on both sides",
        seed=options.seed,
        command=f"python -m training.audio --seed {options.seed}",
        metrics=metrics,
        licence="Apache-2.0; trained on research material whose licences are noted row by row",
        limits=LIMITS,
        inputs={"samples": "float32 [N, T], 4800 <= T <= 96000, 16 kHz mono, from services/audio/preparation.py"},
        outputs={"logit": "float32 [N, 1], calibrated natural log-odds of synthetic speech"},
        extra={
            "families": {name: {"channels": family.channels, "kin": family.kin} for name, family in FAMILIES.items()},
            "calibration": "Platt scaling of all experts as the gate mixes them, on scores of held-out sources, "
            f"shrunk by {MixtureSettings().shrinkage}; inside the graph",
        },
    )
    write_card(card, options.repository)
    _log.info("%s", card.headline)


LIMITS = (
    "Weak evidence on its own: about one utterance in five of sources never met is misjudged.",
    "Lossy codecs, band limits and noise raise that share: see the rows of each channel.",
    "False-positive rates differ by source; calibration holds for recordings like those trained on.",
    "Song, whispering and languages far from the training sources are untested.",
)


if __name__ == "__main__":
    main()
