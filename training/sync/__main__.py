"""``python -m training.sync``: cross-validate the synchrony head by identity, fit it on all, write it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from services.fusion.synchrony import SYNC_MODEL
from training.cards import Card, file_sha256, write_card
from training.data import clips, folds
from training.fusion.crossfit import FOLDS, fold_card, fold_repository
from training.served import MODEL_REPOSITORY, ROOT
from training.sync.alignment import without_source_lags
from training.sync.corpus import Reader, talking_clips
from training.sync.data import TalkingClip
from training.sync.evaluation import SWAPPED, Calibration, Trial, calibrate, figures, log_odds, trials
from training.sync.export import served, write_model
from training.sync.fitting import Schedule, fit
from training.sync.network import ServedSync, SyncNetwork, centred, lag_curve, lag_similarity

CACHE = ROOT / ".cache"
REAL, FAKE = "real", "fake"


def cross_validate(
    real: Sequence[TalkingClip], generated: Sequence[TalkingClip], schedule: Schedule, seed: int
) -> tuple[list[SyncNetwork], list[Trial]]:
    """The towers of each fold and the trials of the real clips that they have not seen."""
    fold = folds([clip.group for clip in real], FOLDS, seed)
    straight = without_source_lags(real, generated)
    networks, scored = [], []
    for at in tqdm(range(FOLDS), desc="folds", unit="fold"):
        held = [clip for clip, place in zip(straight, fold, strict=True) if place == at]
        learnt = [clip for clip in (*real, *generated) if folds([clip.group], FOLDS, seed)[0] != at]
        networks.append(fit(learnt, seed, schedule))
        scored += trials(networks[-1], held, straight, seed)
    return networks, scored


def best_similarities(
    networks: Sequence[SyncNetwork], clips: Sequence[TalkingClip], methods: dict[str, str], seed: int
) -> dict[str, Any]:
    """Mean best similarity of clips by method, by towers that have not seen the identity."""
    found: dict[str, list[float]] = {}
    for clip in clips:
        network = networks[int(folds([clip.group], FOLDS, seed)[0])]
        with torch.inference_mode():
            lips = network.motion(centred(torch.from_numpy(clip.motion)[None]))
            voice = network.voice(centred(torch.from_numpy(clip.voice)[None]))
            found.setdefault(methods[clip.name], []).append(float(lag_curve(lag_similarity(lips, voice)).max()))
    return {name: {"mean_best_similarity": round(float(np.mean(v)), 3), "n": len(v)} for name, v in found.items()}


def write_folds(networks: Sequence[SyncNetwork], calibration: Calibration, example: TalkingClip, digest: str) -> None:
    """Keep the model of each fold beside the caches, for fusion to score what it has not seen."""
    for at, network in enumerate(networks):
        root = fold_repository(CACHE, at, digest)
        write_model(served(network, calibration), example, root)
        write_card(fold_card(SYNC_MODEL, "python -m training.sync"), root)


def model_card(
    measured: dict[str, Any], scored: Sequence[Trial], calibration: Calibration, facts: dict[str, Any]
) -> Card:
    """The card of the served model."""
    auc = measured[f"{SWAPPED}, held-out identities"]["auc"]
    offset = measured["offset of real clips, held-out identities"]["within_3_slots"]
    generators = facts.pop("generators")
    in_sync = [log_odds(trial, calibration) for trial in scored if trial.kind == "in_sync"]
    return Card(
        name=SYNC_MODEL,
        task="tell whether lips and voice belong together, and by how much they are apart",
        trained_on=f"{facts['real']} real and {facts['generated']} lip-synced clips of {facts['groups']} identities",
        headline=f"AUC {auc} in sync against a stranger's voice; offset within 3 frames of 25 a second: {offset}; "
        "both on held-out identities",
        data=["clips (real ones, and generated ones as further lips for the same voices)"],
        split=f"{FOLDS} folds by identity for every figure; the served weights are fitted on all clips; six "
        "recordings whose sound is known to run ahead are moved by the lag found for them",
        seed=facts["seed"],
        command=f"python -m training.sync --seed {facts['seed']}",
        metrics=measured,
        licence="weights made by this project; the clips' own licences allow research use",
        limits=[
            "clips of at least two seconds; one person speaking while seen from the front",
            "lip-sync generators score higher than real speakers (see generators): this branch cannot see them",
            "a voice over somebody who does not speak is out of sync, and no forgery",
            "offsets beyond 0.6 s look like a stranger's voice; offsets up to 0.12 s count as in sync",
            f"{facts['real']} real clips: intervals are wide",
        ],
        inputs={
            "motion": "float32 [n, slots, 80]: x and y of 40 lip points in the frame of the eyes, 25 slots a second",
            "voice": "float32 [n, slots, 160]: four rows of 40 log-mel bands a slot",
        },
        outputs={
            "logit": "float32 [n, 1] calibrated log-odds of being out of sync",
            "curve": "float32 [n, 31] mean cosine at lags -15 to 15 slots; positive: the voice is late",
            "window_logit": "float32 [n, windows] the same log-odds for each two seconds, one a second",
        },
        extra={
            "generators": generators,
            "calibration": {"in_sync_log_odds_quantiles": np.quantile(in_sync, (0.05, 0.5, 0.95)).round(3).tolist()},
            "parameters": facts["parameters"],
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Cross-validate, calibrate, fit on all, write."""
    parser = argparse.ArgumentParser(prog="python -m training.sync", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of weights, segments, folds and trials")
    parser.add_argument("--steps", type=int, default=Schedule().steps, help="steps of each fit")
    parser.add_argument("--out", type=Path, default=MODEL_REPOSITORY, help="model repository to write to")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = clips()
    found = talking_clips(rows, Reader(MODEL_REPOSITORY, CACHE / "sync" / "clips", CACHE / "fusion" / "memo.sqlite"))
    real, generated = found.get(REAL, []), found.get(FAKE, [])
    schedule = Schedule(steps=options.steps)
    networks, scored = cross_validate(real, generated, schedule, options.seed)
    calibration = calibrate(scored)
    measured = figures(scored, calibration, options.seed)
    methods = {row.example.file: row.example.fields.get("method", "") for row in rows}
    network = fit([*real, *generated], options.seed, schedule)
    module: ServedSync = served(network, calibration)
    path = write_model(module, real[0], options.out)
    write_folds(networks, calibration, real[0], file_sha256(path))
    facts = {
        "seed": options.seed,
        "real": len(real),
        "generated": len(generated),
        "groups": len({clip.group for clip in (*real, *generated)}),
        "parameters": sum(values.numel() for values in network.parameters()),
        "generators": best_similarities(networks, [*real, *generated], methods, options.seed),
    }
    write_card(model_card(measured, scored, calibration, facts), options.out)
    for source, row in measured.items():
        for name, figure in row.items():
            print(f"{source}: {name} {figure}")


if __name__ == "__main__":
    main()
