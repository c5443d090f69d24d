"""Makes the demo clip and has it analysed: ``first_verdict.py [options of bonafide analyze]``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bonafide import cli
from deploy.local.demo_clip import demo_clip, speech_synthesiser

KEY_VARIABLE = "BONAFIDE_API_KEY"


def main() -> int:
    """The exit code is that of ``bonafide analyze``: 0 for any verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="so that no key is in the environment")
    own, others = parser.parse_known_args()
    if own.api_key_file is not None:
        os.environ[KEY_VARIABLE] = own.api_key_file.read_text(encoding="utf-8").strip()
    with tempfile.TemporaryDirectory() as directory:
        clip = demo_clip(Path(directory), speech_synthesiser())
        return cli.main(["analyze", *others, str(clip)])


if __name__ == "__main__":
    sys.exit(main())
