"""From the speech sets to ``model_repository/spoof_classifier``: ``python -m training.audio --seed 0``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from training.audio.channels import DEGRADATIONS
from training.audio.corpus import SETS, Utterance, read_utterances
from training.audio.evaluation import figures, figures_by_source, out_of_fold, source_folds, within_sources
from training.audio.export import LinearGraph, SpoofClassifier, export
from training.audio.heads import cell_weights, fit_calibration, fit_linear
from training.audio.store import FeatureStore
from training.cards import Card, write_card
from training.data import data_root
from training.metrics import Measure

PENALTY = 0.003
CACHE = Path(".cache/audio")
_log = logging.getLogger("training.audio")


def main() -> None:
    """Train, measure by held-out source, export, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and of everything drawn")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="where the model goes")
    parser.add_argument("--cache", type=Path, default=CACHE, help="directory of resumable intermediate results")
    parser.add_argument("--conditions", nargs="*", default=list(DEGRADATIONS), help="degradations to report")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    train(options.seed, options.repository, options.cache, options.conditions)


def train(seed: int, repository: Path, cache: Path, conditions: list[str]) -> None:
    """The whole story, top to bottom."""
    utterances = read_utterances(data_root())
    store = FeatureStore(cache / "features")
    clean = store.features(utterances, "clean")
    fake = np.array([utterance.fake for utterance in utterances])
    sources = [utterance.source for utterance in utterances]
    weights = cell_weights(fake, sources)
    folds = source_folds(utterances, seed)
    tested = {"clean": clean} | {name: store.features(utterances, name, DEGRADATIONS[name]) for name in conditions}

    scores = {name: np.zeros(len(utterances)) for name in tested}
    for name, features in tested.items():
        scores[name] = out_of_fold(
            utterances,
            utterances,
            folds,
            lambda learnt, scored, rows=features: fit_linear(
                clean[learnt], fake[learnt], cell_weights(fake[learnt], np.array(sources)[learnt].tolist()), PENALTY
            ).score(rows[scored]),
        )
    calibration = fit_calibration(scores["clean"], fake, weights)
    head = fit_linear(clean, fake, weights, PENALTY)
    export(SpoofClassifier(LinearGraph(head, calibration)), repository)
    metrics: dict[str, dict[str, Measure]] = {}
    for name, values in scores.items():
        logits = calibration.apply(values)
        metrics["all" if name == "clean" else name] = figures(utterances, logits, seed)
        _log.info("%s %s", name, {key: str(value) for key, value in figures(utterances, logits, seed).items()})
    clean_logits = calibration.apply(scores["clean"])
    metrics["within_source_mean"] = {"eer": within_sources(utterances, clean_logits, seed)}
    metrics |= figures_by_source(utterances, clean_logits, seed)
    write_card(_card(metrics, utterances, seed), repository)


def _card(metrics: dict[str, dict[str, Measure]], utterances: list[Utterance], seed: int) -> Card:
    pooled, within = metrics["all"]["eer"], metrics["within_source_mean"]["eer"]
    return Card(
        name="spoof_classifier",
        task="P(synthetic speech) of up to 6 s of prepared speech",
        trained_on=f"{len(utterances)} utterances of {len({item.source for item in utterances})} sources: "
        + ", ".join(SETS),
        headline=f"equal error rate {pooled} pooled, {within} mean within a source; sources and speakers held out",
        data=list(SETS),
        split="10-fold cross-validation; no source and no speaker on both sides",
        seed=seed,
        command=f"python -m training.audio --seed {seed}",
        metrics=metrics,
        licence="Apache-2.0; trained on research material (see data/README)",
        limits=[
            "Lossy codecs, band limits and noise raise the error rate: see the degraded rows.",
            "Calibration holds for recordings like those trained on; false-positive rates differ by source.",
        ],
        inputs={"samples": "float32 [N, T], 16 kHz mono, prepared by services/audio/preparation.py, T >= 1024"},
        outputs={"logit": "float32 [N, 1], calibrated natural log-odds of synthetic speech"},
        extra={"calibration": "Platt scaling on scores of held-out sources, inside the graph"},
    )


if __name__ == "__main__":
    main()
