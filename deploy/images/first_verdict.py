"""Makes the demo clip, has it analysed and prints the report: ``first_verdict.py --server HOST:PORT``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from bonafide.client import Client
from bonafide.connection import Credentials
from bonafide.errors import ClientError
from bonafide.report import print_report
from deploy.local.demo_clip import demo_clip, speech_synthesiser


def main() -> int:
    """Exit 0 for any verdict, 1 when there is none."""
    options = _options()
    credentials = Credentials(
        api_key=options.api_key_file.read_text(encoding="utf-8").strip() if options.api_key_file else "",
        root_certificates=options.authorities,
        certificate=options.certificate,
        private_key=options.key,
        allow_plain_text=options.plain_text,
    )
    with tempfile.TemporaryDirectory() as directory, Client(options.server, credentials=credentials) as client:
        clip = demo_clip(Path(directory), speech_synthesiser())
        try:
            analysis = client.analyze(clip)
        except ClientError as error:
            print(f"no verdict: {error.message} [{error.code} {error.reason}]", file=sys.stderr)
            return 1
    print_report(Console(), clip.name, analysis)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--plain-text", action="store_true", help="go without TLS to another machine")
    parser.add_argument("--authorities", type=Path, metavar="FILE", help="authorities of the gateway's certificate")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="certificate to show")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its private key")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
