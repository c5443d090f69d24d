"""``bonafide keys new NAME``: make an API key. It is printed once; the file of the gateway keeps its hash."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DEFAULT_FILE = Path("api-keys.jsonl")


def main(arguments: Sequence[str]) -> int:
    """Run ``keys`` with its arguments; 0 done, 2 a name or a file that cannot be used."""
    # Only here: a client needs none of it.
    from services.gateway.api_keys import KeyFileError, new_key, read_keys  # noqa: PLC0415
    from services.gateway.quotas import Quota  # noqa: PLC0415

    options = _parser().parse_args(arguments)
    file: Path = options.file
    try:
        text, kept = new_key(options.name, Quota(options.requests_per_minute, options.concurrent))
        if file.exists():
            read_keys(file)
        _append(file, kept.line())
    except (KeyFileError, ValueError, OSError) as error:
        print(f"bonafide: {error}", file=sys.stderr)
        return 2
    print(text)
    print(f"bonafide: shown once; its hash is in {file}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bonafide keys", description="API keys of callers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="make a key for a caller, print it once, add its hash to the gateway's file")
    new.add_argument(
        "name", metavar="NAME", help="the caller; several keys may have one name, as while one is replaced"
    )
    new.add_argument("--file", type=Path, default=DEFAULT_FILE, help=f"the gateway's file (default: {DEFAULT_FILE})")
    new.add_argument("--requests-per-minute", type=_count, default=0, metavar="N", help="0, the default: no limit")
    new.add_argument(
        "--concurrent", type=_count, default=0, metavar="N", help="calls at once; 0, the default: no limit"
    )
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


def _append(file: Path, line: str) -> None:
    """Add a line in one write, so that a gateway that reads meanwhile sees all of it or none."""
    before = file.read_bytes()[-1:] if file.exists() else b"\n"
    start = "" if before in {b"\n", b""} else "\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{start}{line}\n".encode())
    finally:
        os.close(descriptor)
