"""``bonafide models import``: hands over to the training environment, the only one with torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXIT_NO_ENVIRONMENT = 1
PYTHON_VARIABLE = "BONAFIDE_TRAINING_PYTHON"
"""Names another interpreter that has torch and this project's packages."""


def training_python() -> Path:
    """The interpreter of the training environment; it need not exist."""
    named = os.environ.get(PYTHON_VARIABLE)
    return Path(named) if named else ROOT / ".venv-training" / "bin" / "python"


def main(arguments: Sequence[str]) -> int:
    """Import a checkpoint; the exit code is that of the import, or 1 where it cannot run."""
    python = training_python()
    if not python.is_file():
        print("bonafide: importing needs torch: run `make setup-training` once, then try again", file=sys.stderr)
        return EXIT_NO_ENVIRONMENT
    # Relative paths stay those of the caller, so the package is found by path instead of by directory.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_inherited()])}
    command = [str(python), "-m", "training.checkpoints", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - our own interpreter


def _inherited() -> list[str]:
    found = os.environ.get("PYTHONPATH")
    return [found] if found else []
