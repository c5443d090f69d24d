"""Trains the members of the ensemble, then fits its weights: data in, model repository out."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace

import cv2
import torch
from torch import nn

from training.crop_models import Part, faces_of, held_out_parts
from training.ensemble.broad import MINUTES, SEED, BroadClassifier, broad_run, train_broad
from training.ensemble.members import load_published, new_members
from training.ensemble.probe import FittedProbe, fit_probe
from training.ensemble.serving import BROAD, CACHE, PROBE, Training, export_members, fit_ensemble
from training.ensemble.training import EVERY, JointRun
from training.frame.batches import BatchSource, Mixture
from training.frame.training import Plan, Run

MANY = 1_000_000
STEPS = 3200
"""About an hour of one core."""
MIXTURE = Mixture(swapped=3, blended=6, mixed=7)
"""Unlike the frame classifier's: that one knows the swaps of DFDC, these are there for forgeries of other kinds."""
SEED_OF_BATCHES = 1000
"""Added to the seed, so that the members see other batches than the frame classifier did."""
log = logging.getLogger(__name__)


def main() -> None:
    """Run or resume the training, fit the weights, write models, configurations and cards."""
    parser = argparse.ArgumentParser(prog="python -m training.ensemble", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="batches, seen by all members")
    parser.add_argument("--minutes", type=float, default=0.0, help="train for so long, instead of so many steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export", action="store_true", help="export the last checkpoint without training on")
    parser.add_argument("--weigh", action="store_true", help="only fit the weights of the networks that are served")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    mixed, swaps = faces_of("manipulated_faces_train"), faces_of("dfdc_faces_train")
    run, broad = new_run(options.steps, options.minutes, options.seed), broad_run()
    if not (options.export or options.weigh):
        seed = options.seed + SEED_OF_BATCHES
        run.train(BatchSource(swaps, mixed, mixture=MIXTURE, seed=seed, count=MANY))
        train_broad(broad, SEED)
    parts = held_out_parts(mixed)
    length = f"--minutes {options.minutes:g}" if options.minutes else f"--steps {options.steps}"
    whole = Training(f"python -m training.ensemble {length} --seed {options.seed}", options.seed)
    if not options.weigh:
        export_all(run, broad, fit_probe(mixed, swaps, options.seed), parts, whole)
    written = fit_ensemble((BROAD, PROBE, *new_members()), parts, whole)
    log.info(
        "weights %s, left out %s", [written[own] for own in ("familiar", "unfamiliar")], sorted(written["left_out"])
    )


def export_all(run: JointRun, broad: Run, fitted: FittedProbe, parts: Sequence[Part], whole: Training) -> None:
    """Export the members of both runs and the probe.

    Args:
        run: of the three small networks.
        broad: of the broad classifier.
        fitted: the probe.
        parts: what none of them was trained on.
        whole: command and seed of the cards.
    """
    trainings = {
        name: replace(whole, steps=run.progress.step // EVERY.get(name, 1), seconds=run.progress.seconds)
        for name in run.average
    }
    command = f"python -m training.ensemble.broad --minutes {MINUTES:g} --seed {SEED}"
    trainings[BROAD] = Training(command, SEED, broad.progress.step, broad.progress.seconds)
    across = {name: figure.as_dict() for name, figure in fitted.across_sources.items()}
    trainings[PROBE] = replace(whole, figures={"cross_validated_over_training_sources": across})
    members = nn.ModuleDict({**run.average, BROAD: BroadClassifier(broad.average), PROBE: fitted.probe})
    export_members(members, parts, trainings)


def new_run(steps: int, minutes: float, seed: int) -> JointRun:
    """A run at its beginning, or where its checkpoint left off; planned by time if ``minutes`` are given."""
    torch.manual_seed(seed)
    steps = 0 if minutes else steps
    plan = Plan(steps=steps, minutes=minutes, seed=seed, rate=2e-3, weight_decay=0.03, averaging=0.995)
    members, checkpoint = new_members(), CACHE / f"run{seed}.pt"
    if not checkpoint.is_file():
        load_published(members)
    return JointRun(members, plan, checkpoint)


if __name__ == "__main__":
    main()
