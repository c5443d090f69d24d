"""Writes the chart's README: what it is, and a table of its values."""

from __future__ import annotations

import json

from deploy.helm.documented_values import CHART, VALUES, documented_values

HEAD = CHART / "README.head.md"


def render() -> str:
    """The page."""
    rows = [
        f"| `{value.name}` | `{_shown(value.default)}` | {value.meaning.replace('|', chr(92) + '|')} |"
        for value in documented_values(VALUES.read_text(encoding="utf-8"))
    ]
    table = ["| value | default | meaning |", "|---|---|---|", *rows]
    return HEAD.read_text(encoding="utf-8") + "\n".join(table) + "\n"


def _shown(default: object) -> str:
    return json.dumps(default, ensure_ascii=False).replace("|", "\\|")
