"""Writes measured figures into texts and model cards, so that no number is ever typed.

In Markdown, ``<!-- figure BRANCH SOURCE METRIC -->…<!-- end -->`` holds one figure with its interval, and
``<!-- figures -->…<!-- end -->`` the table of headlines. Cards get an entry ``evaluation`` with the few figures
that say what to expect of their branch; all the others stay in summary.json.
``python -m training.evaluation.figures README.md`` fills them; ``--check`` only says whether they are as they
should be.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.served import MODEL_REPOSITORY, ROOT

Table = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""Branch → source → metric → ``{value, low, high, n}``."""

SUMMARY = ROOT / "docs" / "evaluation" / "summary.json"
ONE = re.compile(r"<!-- figure (\S+) (\S+) (\S+) -->.*?<!-- end -->", re.DOTALL)
ALL = re.compile(r"<!-- figures -->.*?<!-- end -->", re.DOTALL)
HEADLINES = (
    ("Face classifiers, one picture of DFDC groups never trained on", "frame", "dfdc_faces_val", "auc"),
    ("Face classifiers, one picture of sources and methods never seen", "frame", "manipulated_faces_held_out", "auc"),
    ("Speech, sources never trained on, pooled", "audio", "all", "eer"),
    ("Speech, mean within a source never trained on", "audio", "within_source_mean", "eer"),
    ("Synchrony, in sync against another's voice", "sync", "dubbed", "auc"),
    ("Verdict, dubbed clips", "fused", "dubbed", "auc"),
    ("Verdict, shifted sound", "fused", "shifted", "auc"),
    ("Verdict, still picture with speech", "fused", "still_with_speech", "auc"),
    ("Verdict, generated or altered faces", "fused", "generated", "auc"),
    ("Verdict, calibration error over all clips", "fused", "all", "ece"),
)
"""What the table shows: words, branch, source, metric."""
CARDS = {
    "frame_classifier": "frame",
    "patch_gate": "patch",
    "temporal": "temporal",
    "spoof_classifier": "audio",
    "sync": "sync",
}
CARD_SOURCES = (
    *("all", "dfdc_faces_val", "manipulated_faces_held_out", "mesonet_faces_train", "clips", "generated"),
    *("within_source_mean", "dubbed", "shifted", "still_with_speech"),
)
"""Sources whose figures stand in cards."""
CARD_METRICS = ("auc", "eer", "tpr_at_fpr_5", "ece")


class FigureError(Exception):
    """A text asks for a figure that was not measured."""


def shown(table: Table, branch: str, source: str, metric: str) -> str:
    """One figure with its interval.

    Raises:
        FigureError: it was not measured.
    """
    figure = table.get(branch, {}).get(source, {}).get(metric)
    if figure is None:
        raise FigureError(f"no figure {branch} {source} {metric} was measured")
    return f"{figure['value']:.3f} (95 % {figure['low']:.3f}–{figure['high']:.3f})"


def headline_table(table: Table) -> str:
    """The headlines that were measured, as a Markdown table."""
    lines = ["| measured on | metric | value (95 % interval) | n |", "|---|---|---|---|"]
    for words, branch, source, metric in HEADLINES:
        figure = table.get(branch, {}).get(source, {}).get(metric)
        if figure is not None:
            value = shown(table, branch, source, metric)
            lines.append(f"| {words} | {metric.upper()} | {value} | {figure['n']} |")
    return "\n".join(lines)


def filled(text: str, table: Table) -> str:
    """A text with all its marked figures as measured.

    Raises:
        FigureError: it asks for one that was not measured.
    """

    def one(found: re.Match[str]) -> str:
        branch, source, metric = found.groups()
        return f"<!-- figure {branch} {source} {metric} -->{shown(table, branch, source, metric)}<!-- end -->"

    text = ONE.sub(one, text)
    return ALL.sub(lambda _: f"<!-- figures -->\n{headline_table(table)}\n<!-- end -->", text)


def card_text(text: str, figures: Mapping[str, Any]) -> str:
    """A card with the chief figures of its branch; the rest stays as it is."""
    card = json.loads(text)
    chosen = {source: figures[source] for source in CARD_SOURCES if source in figures}
    card["evaluation"] = {
        source: {metric: row[metric] for metric in CARD_METRICS if metric in row} for source, row in chosen.items()
    }
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def _wanted(texts: Sequence[Path], models: Path, table: Table) -> dict[Path, str]:
    """File → what it should hold."""
    wanted = {path: filled(path.read_text(encoding="utf-8"), table) for path in texts}
    for model, branch in CARDS.items():
        path = models / model / "card.json"
        if path.is_file() and table.get(branch):
            wanted[path] = card_text(path.read_text(encoding="utf-8"), table[branch])
    return wanted


def main(arguments: list[str] | None = None) -> int:
    """Fill texts and cards; 1 with ``--check`` if one is not as it should be, 2 if a figure is missing."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluation.figures", description=__doc__)
    parser.add_argument("texts", nargs="*", type=Path, default=[ROOT / "README.md"], help="Markdown files")
    parser.add_argument("--summary", type=Path, default=SUMMARY, help="summary.json of an evaluation")
    parser.add_argument("--models", type=Path, default=MODEL_REPOSITORY, help="the model repository")
    parser.add_argument("--check", action="store_true", help="change nothing, say what differs")
    options = parser.parse_args(arguments)
    table = json.loads(options.summary.read_text(encoding="utf-8"))
    try:
        wanted = _wanted(options.texts, options.models, table)
    except FigureError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    different = [path for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
    for path in different:
        print(f"{path}: {'differs' if options.check else 'filled'}")
        if not options.check:
            path.write_text(wanted[path], encoding="utf-8")
    return int(options.check and bool(different))


if __name__ == "__main__":
    sys.exit(main())
