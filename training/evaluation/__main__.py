"""``python -m training.evaluation [--data DIRECTORY] [--out DIRECTORY]``: see ``make evaluate``."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from services.fusion.store import SHIPPED_HEADS
from training.data import data_root, group_fraction
from training.evaluation import held_out, plots, report, summary
from training.evaluation.degradation import PICTURE_CONDITIONS, SOUND_CONDITIONS
from training.evaluation.discovery import Collection, discover, held_out_part
from training.evaluation.ledgers import ClipOptions, score_clips
from training.evaluation.rows import CLEAN, Row
from training.evaluation.speech import score_speech
from training.evaluation.stills import StillOptions, score_stills
from training.evaluation.summary import Measured
from training.served import MODEL_REPOSITORY, ROOT

MEMO = ROOT / ".cache" / "fusion" / "memo.sqlite"
STILLS_A_CLASS = 120
"""Pictures of each class that robustness curves are measured on."""
UTTERANCES = 800
"""With more utterances than this, degraded conditions are measured on a part of them."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for; ``data`` is None for the held-out parts of the shared data."""

    data: Path | None
    out: Path
    models: Path
    heads: Path
    cache: Path
    processes: int
    robustness: bool


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
    parser.add_argument("--processes", type=int, default=2, help="processes that work at once")
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
    measured, refused = _measure(collection, options)
    figures = summary.summarise(measured)
    told = held_out.statements(options.models, options.heads)
    if options.data is None:
        figures = held_out.replaced(figures, options.models, options.heads)
    options.out.mkdir(parents=True, exist_ok=True)
    written = summary.write(figures, options.out)
    pictures = plots.draw(measured, figures, options.out)
    facts = report.Facts(
        collection=collection,
        measured=measured,
        summary=figures,
        pictures=tuple(pictures),
        refused=tuple(refused),
        statements=tuple(told),
        shared=options.data is None,
        models=options.models,
        seconds=time.monotonic() - began,
    )
    report.write(facts, options.out)
    print(f"wrote {written} and {options.out / 'README.md'}")
    return 0


def _refuse(sentence: str) -> int:
    print(f"evaluation: {sentence}", file=sys.stderr)
    return 2


def _measure(collection: Collection, options: Options) -> tuple[Measured, list[str]]:
    stills = _stills(collection, options)
    speech = _speech(collection, options)
    clips: list[Row] = []
    refused: list[str] = []
    # Training has seen the shared clips already; what single models answered there is worth keeping.
    memo = MEMO if options.data is None and options.models == MODEL_REPOSITORY else None
    wanted = ClipOptions(options.models, options.heads, options.cache, options.processes, options.robustness, memo)
    for part in collection.clips:
        found = score_clips(part, wanted)
        clips += found.rows
        refused += found.refused
    return Measured(stills, speech, clips), refused


def _stills(collection: Collection, options: Options) -> list[Row]:
    where = StillOptions(options.models, options.cache, options.processes)
    rows = score_stills(collection.faces, where)
    if not options.robustness or not rows:
        return rows
    chosen: list[str] = []
    for label in (0, 1):
        names = (f"{row.collection}/{row.name}" for row in rows if row.label == label)
        chosen += sorted(names, key=group_fraction)[:STILLS_A_CLASS]
    for condition in PICTURE_CONDITIONS:
        rows += score_stills(collection.faces, where, condition.name, frozenset(chosen))
    return rows


def _speech(collection: Collection, options: Options) -> list[Row]:
    rows: list[Row] = []
    conditions = [CLEAN, *(SOUND_CONDITIONS if options.robustness else ())]
    for condition in conditions:
        rows += score_speech(collection.speech, options.models, options.cache, condition, options.processes)
    return rows


if __name__ == "__main__":
    sys.exit(main())
