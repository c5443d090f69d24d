"""Write what follows from the modules here: ``python -m deploy.observe.generate``."""

from __future__ import annotations

from pathlib import Path

from deploy.observe import boards, reference, rules
from deploy.observe.files import DASHBOARDS, RULES


def files() -> dict[Path, str]:
    """What each generated file should hold."""
    dashboards = {DASHBOARDS / name: text for name, text in boards.files().items()}
    return {RULES: rules.render(), reference.PAGE: reference.render(), **dashboards}


if __name__ == "__main__":
    for file, content in files().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
