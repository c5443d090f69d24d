"""The reasons that docs/errors.md documents."""

from __future__ import annotations

import re

from deploy.local.stack import ROOT

PAGE = ROOT / "docs" / "errors.md"


def documented_reasons() -> frozenset[str]:
    """Every reason in the table of errors."""
    return frozenset(re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
