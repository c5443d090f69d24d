"""``make demo``: start the stack, analyse one clip, print the report, stop what was started."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bonafide import cli
from deploy.local.demo_clip import demo_clip, speech_synthesiser
from deploy.local.stack import ROOT, Stack, StackError, StackOptions, stop_signals_raise


def main() -> int:
    """Run the demo; the exit code is that of ``bonafide analyze``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path, help="clip to analyse; one of our own making without it")
    clip: Path | None = parser.parse_args().clip
    with stop_signals_raise():
        try:
            if clip is None:
                clip = _own_clip()
            with Stack(StackOptions(run_directory=ROOT / ".run" / "demo"), _say) as stack:
                return cli.main(["analyze", "--server", stack.gateway, str(clip)])
        except StackError as error:
            print(f"demo: {error}", file=sys.stderr)
            return cli.EXIT_FAILED
        except KeyboardInterrupt:
            return 130


def _own_clip() -> Path:
    synthesiser = speech_synthesiser()
    if synthesiser is None:
        _say("no speech synthesiser (espeak-ng, flite) is installed: the demo clip is silent")
    return demo_clip(ROOT / ".cache" / "demo", synthesiser)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
