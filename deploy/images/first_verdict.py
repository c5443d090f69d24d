"""Makes the demo clip and analyses it: ``python -m deploy.images.first_verdict [options of bonafide analyze]``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bonafide import cli
from deploy.local.demo_clip import demo_clip, speech_synthesiser


def main() -> int:
    """The exit code is that of ``bonafide analyze``: 0 for any verdict."""
    with tempfile.TemporaryDirectory() as directory:
        clip = demo_clip(Path(directory), speech_synthesiser())
        return cli.main(["analyze", *sys.argv[1:], str(clip)])


if __name__ == "__main__":
    sys.exit(main())
