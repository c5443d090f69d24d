"""``python -m training.checkpoints ARCHITECTURE CHECKPOINT``: what ``bonafide models import`` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from training.checkpoints.catalogue import ARCHITECTURES
from training.checkpoints.importing import ImportRequest, import_checkpoint, load_into_triton
from training.checkpoints.ladeda import GRADIENTS
from training.checkpoints.weights import CheckpointError
from training.served import MODEL_REPOSITORY

EXIT_BAD_INPUT = 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="bonafide models import",
        description="Bring a published checkpoint into the model repository: rebuild its architecture, load its "
        "weights and nothing else, export it, and check the graph against torch.",
    )
    made.add_argument("architecture", metavar="ARCH", choices=list(ARCHITECTURES), help=", ".join(ARCHITECTURES))
    made.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a .pth or .h5 file")
    made.add_argument("--licence", required=True, help="licence of the weights, as their publisher states it")
    made.add_argument("--name", default="", help="directory in the model repository (default: imported_ARCH)")
    made.add_argument("--repository", type=Path, default=MODEL_REPOSITORY, help="the model repository")
    made.add_argument("--size", type=int, help="side of the network's input, pixels (default: as published)")
    made.add_argument(
        "--fake-class", type=int, choices=(0, 1), help="which class of the network means fake (default: as published)"
    )
    made.add_argument("--gradient", choices=GRADIENTS, default=GRADIENTS[0], help="what LaDeDa networks look at")
    made.add_argument("--replace", action="store_true", help="replace a model of that name")
    made.add_argument("--triton", metavar="HOST:PORT", default="", help="have this running Triton load it at once")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Import one checkpoint; 0 done, 2 bad input."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    request = ImportRequest(
        architecture=options.architecture,
        checkpoint=options.checkpoint,
        licence=options.licence,
        repository=options.repository,
        name=options.name,
        size=options.size,
        fake_class=options.fake_class,
        gradient=options.gradient,
        replace=options.replace,
    )
    try:
        done = import_checkpoint(request)
        print(f"{done.name}: installed, SHA-256 {done.sha256}, within {done.difference:.1g} of torch")
        if options.triton:
            load_into_triton(done.name, options.triton)
            print(f"{done.name}: loaded by Triton at {options.triton}")
    except CheckpointError as error:
        print(f"bonafide: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
