"""Input that is guided by coverage: atheris changes files and messages so that they reach ever more of our code.

``python -m benchmarks.reliability.guided --runs N --corpus DIRECTORY``; the directory keeps what reached something
new, so the next run begins there. The first byte of an input says which door it goes to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["services.gateway", "services.common"]):
    from benchmarks.reliability.doors import Doors
    from benchmarks.reliability.inputs import Generator, Input, Kind
    from benchmarks.reliability.reasons import documented_reasons

LONGEST = 1 << 15
HANG_SECONDS = 120
KINDS = (Kind.CONTAINER, Kind.OPTIONS, Kind.STREAM)
PIECE = 512
"""Bytes of one message of an upload, but the last."""


def main() -> None:
    """Run; the exit code is 0 unless something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(_seeds()):
        (options.corpus / f"seed-{number}").write_bytes(seed)
    doors = Doors(documented_reasons())

    def test_one_input(data: bytes) -> None:
        doors.enter(read_input(data))

    flags = [f"-runs={options.runs}", f"-max_len={LONGEST}", f"-timeout={HANG_SECONDS}", "-rss_limit_mb=2048"]
    flags += ["-close_fd_mask=1", f"-artifact_prefix={options.corpus.parent}/found-", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, str(options.corpus)], test_one_input)
    atheris.Fuzz()


def read_input(data: bytes) -> Input:
    """The input that some bytes stand for."""
    kind = KINDS[data[0] % len(KINDS)] if data else Kind.OPTIONS
    body = data[1:]
    if kind is not Kind.STREAM:
        return Input(0, kind, (body,))
    return Input(0, kind, tuple(body[start : start + PIECE] for start in range(0, len(body), PIECE)))


def _seeds() -> Iterator[bytes]:
    generator = Generator(0)
    for file in generator.files:
        yield bytes([KINDS.index(Kind.CONTAINER)]) + file[: LONGEST - 1]
    for number in range(200):
        given = generator.make(number)
        if given.kind is not Kind.CONTAINER:
            yield bytes([KINDS.index(given.kind)]) + b"".join(given.messages)[: LONGEST - 1]


if __name__ == "__main__":
    main()
