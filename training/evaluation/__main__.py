"""``python -m training.evaluation [--data DIRECTORY] [--out DIRECTORY]``: see ``make evaluate``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from services.fusion.store import SHIPPED_HEADS
from training.data import data_root
from training.evaluation import held_out, plots, report, summary
from training.evaluation.discovery import discover, held_out_part
from training.evaluation.stages import Options, stages
from training.served import MODEL_REPOSITORY, ROOT

MOST_PROCESSES = 4
"""Each takes about a gigabyte with a long clip of large pictures."""


def options_from(arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation",
        description="Measure the served models on labelled data and write summary.json, a report and figures.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="directory with sets (NAME.tsv beside NAME.zip) and clips (a *.tsv beside open files); "
        "default: what the shared data holds that was not trained on",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evaluation", help="where the report goes")
    parser.add_argument("--models", type=Path, default=MODEL_REPOSITORY, help="the model repository")
    parser.add_argument("--heads", type=Path, default=SHIPPED_HEADS, help="the fusion heads and policies")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "evaluation", help="resumable results")
    parser.add_argument(
        "--processes", type=int, default=min(os.cpu_count() or 1, MOST_PROCESSES), help="processes that work at once"
    )
    parser.add_argument("--no-robustness", action="store_true", help="leave out degraded conditions")
    chosen = parser.parse_args(arguments)
    return Options(
        data=chosen.data,
        out=chosen.out,
        models=chosen.models.resolve(),
        heads=chosen.heads.resolve(),
        cache=chosen.cache,
        processes=chosen.processes,
        robustness=not chosen.no_robustness,
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure everything that is there, and write it down. 0 if something was measured, 2 if nothing was."""
    options = options_from(arguments)
    began = time.monotonic()
    try:
        collection = discover(options.data or data_root())
    except FileNotFoundError as error:
        return _refuse(str(error))
    if not collection.size:
        return _refuse(f"{options.data or data_root()} holds no labelled set: nothing to measure")
    if options.data is None:
        collection = held_out_part(collection)
    options.out.mkdir(parents=True, exist_ok=True)
    for stage in stages(collection, options):
        figures = summary.summarise(stage.measured)
        if options.data is None:
            figures = held_out.with_speech(figures, options.models)
        # Written after every stage: a run that is stopped leaves what it has measured.
        written = summary.write(figures, options.out)
    facts = report.Facts(
        collection=collection,
        measured=stage.measured,
        summary=figures,
        pictures=tuple(plots.draw(stage.measured, figures, options.out)),
        refused=stage.refused,
        statements=tuple(held_out.statements(options.models, options.heads)),
        shared=options.data is None,
        models=options.models,
        heads=options.heads,
        seconds=time.monotonic() - began,
    )
    report.write(facts, options.out)
    print(f"wrote {written} and {options.out / 'README.md'}")
    return 0


def _refuse(sentence: str) -> int:
    print(f"evaluation: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
