"""A second classifier of single crops that learns breadth: ``python -m training.ensemble.broad --minutes 75``.

The network of the frame classifier from the same ImageNet start, but mostly on forgeries of many methods and on
self-blended faces. The more swaps of one data set a network sees, the better it knows those and the less the rest;
two networks that each see more of one side say more together than one that sees both.
"""

from __future__ import annotations

import argparse
import logging

import cv2
import torch
from torch import Tensor, nn

from training.crop_models import faces_of
from training.ensemble.serving import CACHE
from training.frame.batches import BatchSource, Mixture
from training.frame.network import FrameClassifier, load_imagenet_weights
from training.frame.training import Plan, Run

MINUTES = 75.0
SEED = 1
MIXTURE = Mixture(swapped=2, blended=7, mixed=7)
MANY = 1_000_000


class BroadClassifier(nn.Module):
    """The trained network without its embedding and map, which serving reads of the frame classifier alone."""

    def __init__(self, network: FrameClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        """Logit [n, 1] of uint8 crops [n, side, side, 3] RGB."""
        return self.network(crops)[0]


def broad_run(minutes: float = MINUTES, seed: int = SEED) -> Run:
    """A run at its beginning, or where its checkpoint left off."""
    torch.manual_seed(seed)
    plan = Plan(minutes=minutes, seed=seed)
    network = FrameClassifier(plan.size)
    load_imagenet_weights(network)
    return Run(network, plan, CACHE / f"broad{seed}.pt")


def train_broad(run: Run, seed: int) -> None:
    """Train to the end of the plan."""
    swaps, mixed = faces_of("dfdc_faces_train"), faces_of("manipulated_faces_train")
    run.train(BatchSource(swaps, mixed, mixture=MIXTURE, seed=seed, count=MANY))


def main() -> None:
    """Run or resume the training."""
    parser = argparse.ArgumentParser(prog="python -m training.ensemble.broad", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="training time")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    train_broad(broad_run(options.minutes, options.seed), options.seed)


if __name__ == "__main__":
    main()
