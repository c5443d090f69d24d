"""What campaigns found: kept while they run, published as JSON, and laid out as docs/reliability.md."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deploy.local.stack import ROOT

PUBLISHED = ROOT / "docs" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"
DETAILS = "details.json"

Row = dict[str, Any]


class Record:
    """Rows of one campaign, on disk as soon as each is known, so that it can go on after an interruption.

    Args:
        directory: where the rows are kept.
        again: forget rows of before.
    """

    def __init__(self, directory: Path, *, again: bool = False) -> None:
        if again:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._rows: dict[str, Row] = {}
        for file in sorted(directory.glob("*.json")):
            entry = json.loads(file.read_text(encoding="utf-8"))
            self._rows[entry["name"]] = entry

    @property
    def done(self) -> frozenset[str]:
        """Names of the rows that are known."""
        return frozenset(self._rows)

    def add(self, name: str, row: Row, details: Row) -> None:
        """Keep one row and what else is to be told of it."""
        entry: dict[str, Any] = {"name": name, "row": row, "details": details}
        self._rows[name] = entry
        safe = "".join(letter if letter.isalnum() else "-" for letter in name)
        (self._directory / f"{safe}.json").write_text(json.dumps(entry), encoding="utf-8")

    def publish(self, campaign: str, order: Sequence[str]) -> None:
        """Write the rows as docs/reliability/CAMPAIGN.json, in an order, and their details beside them."""
        names = [name for name in order if name in self._rows]
        publish(campaign, [self._rows[name]["row"] for name in names])
        publish_details(campaign, {name: self._rows[name]["details"] for name in names})


def publish(campaign: str, result: Any) -> None:  # noqa: ANN401 - JSON
    """Write docs/reliability/CAMPAIGN.json."""
    PUBLISHED.mkdir(parents=True, exist_ok=True)
    (PUBLISHED / f"{campaign}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def publish_details(campaign: str, details: Row) -> None:
    """Write what a table leaves out."""
    known = _published(DETAILS.removesuffix(".json")) or {}
    publish(DETAILS.removesuffix(".json"), {**known, campaign: details})


def _published(campaign: str) -> Any:  # noqa: ANN401 - JSON
    file = PUBLISHED / f"{campaign}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def table(rows: Sequence[Row], columns: Sequence[str] = ()) -> str:
    """Rows as a Markdown table; columns are the first row's keys unless named."""
    names = list(columns) or list(rows[0])
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(_shown(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _shown(value: Any) -> str:  # noqa: ANN401 - JSON
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def faults_section(result: Any, details: Row) -> str:  # noqa: ANN401 - JSON
    """The table of faults, with how long the system took to be whole again."""
    rows = []
    for row in result:
        seen = details.get(row["fault"], {})
        recovered = seen.get("recovered_seconds")
        rows.append({**row, "whole_again_s": "not within 60" if recovered is None else recovered})
    kinds: dict[str, int] = {}
    for seen in details.values():
        for remark, count in seen.get("remarks", {}).items():
            kinds[remark] = kinds.get(remark, 0) + count
    listed = "\n".join(f"- {count} × {remark}" for remark, count in sorted(kinds.items(), key=lambda kind: -kind[1]))
    return f"{table(rows)}\n\nOver all faults, those that were not right:\n\n{listed or '- none'}"


def plain_section(result: Any, _details: Row) -> str:  # noqa: ANN401 - JSON
    """A list of rows, or one row."""
    return table(result if isinstance(result, list) else [result])


SECTIONS: tuple[tuple[str, str, Callable[[Any, Row], str]], ...] = (
    ("faults", "Faults under steady load", faults_section),
    ("overload", "Overload", plain_section),
    ("fuzz", "Generated input", plain_section),
    ("malice", "Malice against a running gateway", plain_section),
    ("soak", "Soak", plain_section),
)


def write_page() -> None:
    """Write docs/reliability.md from what is published and from the words beside this module."""
    details = _published(DETAILS.removesuffix(".json")) or {}
    parts = [_words("introduction")]
    for campaign, title, section in SECTIONS:
        result = _published(campaign)
        shown = section(result, details.get(campaign, {})) if result else "Not recorded yet."
        parts.append(f"## {title}\n\n{_words(campaign)}\n\n{shown}")
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _words(name: str) -> str:
    return (Path(__file__).parent / "words" / f"{name}.md").read_text(encoding="utf-8").strip()
