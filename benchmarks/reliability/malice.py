"""``make fuzz``, second part: attacks on a running gateway, and what it holds before and after each."""

from __future__ import annotations

import argparse
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from rich.console import Console
from rich.progress import Progress

from benchmarks.reliability import bombs, watch, wire
from benchmarks.reliability.arena import Arena, ArenaOptions
from benchmarks.reliability.checker import Ending
from benchmarks.reliability.inputs import Generator, Kind
from benchmarks.reliability.load import METHOD, error_info
from benchmarks.reliability.report import Record, write_page
from benchmarks.reliability.watch import Holding
from bonafide.v1 import analysis_pb2
from deploy.local.stack import GATEWAY, ROOT

DIRECTORY = ROOT / ".run" / "reliability"
MAX_FILE_BYTES = 64 << 20
SETTLE_SECONDS = 10.0
MOST_ROUNDS = 6
"""Times that an attack is repeated until it adds nothing; then what it added last is growth."""
MEMORY_TOLERANCE = 32 << 20
"""Growth of the gateway's resident memory that counts as back at the baseline."""
PATHS = ("../../etc/passwd", "/etc/shadow", "C:\\boot.ini", "file:///etc/passwd", "|id", "$(id)", "a\x00.mp4", "con")
CHUNK = 128 << 10
Attack = Callable[[str], str]


class Attacker:
    """Attacks that speak gRPC."""

    def __init__(self, still: bytes) -> None:
        self._still = still

    def send(self, address: str, data: bytes, **options: Any) -> str:  # noqa: ANN401 - fields of AnalyzeOptions
        """Upload a file; how that ended."""
        first = analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(**options))
        source = io.BytesIO(data)
        chunks = iter(lambda: source.read(CHUNK), b"")
        messages = [first.SerializeToString()]
        return self.call(
            address,
            (
                *messages,
                *(analysis_pb2.AnalyzeRequest(chunk=chunk).SerializeToString() for chunk in chunks),
            ),
        )

    def call(self, address: str, messages: Sequence[bytes], metadata: Sequence[tuple[str, str]] = ()) -> str:
        """Send messages in wire form; "OK", or the status and its reason."""
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            method: Any = channel.stream_stream(METHOD)
            try:
                for _ in method(iter(messages), timeout=60, metadata=metadata or None):
                    pass
            except grpc.RpcError as error:
                return f"{error.code().name} {error_info(error)}".strip()
        return "OK"

    def paths(self, address: str) -> str:
        """File names that are paths, devices and commands."""
        return _counted(self.send(address, self._still, file_name=name) for name in PATHS)

    def big_metadata(self, address: str) -> str:
        """A megabyte of metadata."""
        options = analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions()).SerializeToString()
        return self.call(address, [options], [(f"x-note-{index}", "a" * 64_000) for index in range(16)])

    def big_message(self, address: str) -> str:
        """One chunk of 32 MiB."""
        options = analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions()).SerializeToString()
        return self.call(address, [options, analysis_pb2.AnalyzeRequest(chunk=bytes(32 << 20)).SerializeToString()])

    def generated(self, address: str, count: int = 300) -> str:
        """Generated uploads through the real door."""
        generator, seen, number = Generator(1), Counter[str](), 0
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            method: Any = channel.stream_stream(METHOD)
            while sum(seen.values()) < count:
                given = generator.make(number)
                number += 1
                if given.kind is not Kind.STREAM:
                    continue
                try:
                    for _ in method(iter(given.messages), timeout=60):
                        pass
                    seen["OK"] += 1
                except grpc.RpcError as error:
                    seen[error.code().name] += 1
        return ", ".join(f"{count} {name}" for name, count in seen.most_common())


@dataclass(frozen=True, slots=True)
class Trial:
    """One attack by name."""

    name: str
    attack: Attack


def trials(attacker: Attacker) -> list[Trial]:
    """All attacks."""

    def file(make: Callable[[], bytes]) -> Attack:
        return lambda address: attacker.send(address, make())

    return [
        Trial("slow loris, one byte a second", wire.slow_loris),
        Trial("half an HTTP/2 preface", wire.half_preface),
        Trial("HTTP/2 ping flood", wire.ping_flood),
        Trial("HTTP/2 stream flood", wire.stream_flood),
        Trial("HTTP/2 rapid reset", wire.rapid_reset),
        Trial("header injection", wire.header_injection),
        Trial("1 MB of metadata", attacker.big_metadata),
        Trial("a chunk of 32 MiB", attacker.big_message),
        Trial("paths as file_name", attacker.paths),
        Trial("endless upload", file(lambda: bombs.endless_mp4((MAX_FILE_BYTES >> 20) + 8))),
        Trial("zip bomb, 256 MB", file(bombs.zip_bomb)),
        Trial("pixel bomb, 256 megapixels", file(bombs.pixel_bomb)),
        Trial("comment bomb in a PNG, 512 MB", file(bombs.metadata_bomb)),
        Trial("header bomb in a MOV, 512 MB", file(bombs.header_bomb)),
        Trial("duration bomb, 1,000 h", file(bombs.duration_bomb)),
        Trial("60,000 tiny frames", file(bombs.frame_bomb)),
        Trial("3,000 tracks", file(bombs.track_bomb)),
        Trial("10,000-frame GIF", file(bombs.gif_bomb)),
        Trial("300 generated uploads", attacker.generated),
    ]


def main() -> None:
    """Carry out the attacks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="ATTACK")
    parser.add_argument("--again", action="store_true", help="forget what was done before")
    options = parser.parse_args()
    record = Record(DIRECTORY / "malice", again=options.again)
    gateway = {"BONAFIDE_GATEWAY_MAX_FILE_BYTES": str(MAX_FILE_BYTES)}
    setting = ArenaOptions(directory=DIRECTORY, gateways=1, links=False, own_environment={GATEWAY: gateway})
    with Arena(setting) as arena, Progress(console=Console(stderr=True)) as progress:
        still = next(sample.body for sample in arena.samples if sample.name == "no face")
        listed = trials(Attacker(still))
        wanted = [trial for trial in listed if not options.only or trial.name in options.only]
        bar = progress.add_task("attacks", total=len(wanted))
        for trial in wanted:
            if trial.name not in record.done:
                record.add(trial.name, attack(arena, trial), {})
            progress.advance(bar)
    record.publish("malice", [trial.name for trial in listed])
    write_page()


def attack(arena: Arena, trial: Trial) -> dict[str, Any]:
    """One attack, again and again until it adds nothing: how it ended, what was kept, whether others were right.

    What a process keeps for reuse stops growing; what it leaks does not.
    """
    pid = arena.stack.pids[GATEWAY]
    arena.in_turn(apart=True)
    before = watch.holding(pid)
    ending = trial.attack(arena.targets[0])
    highest = last = _settled(pid, before)
    for _ in range(MOST_ROUNDS):
        highest = max(highest, last, key=lambda each: each.resident_bytes)
        ending = trial.attack(arena.targets[0])
        last = _settled(pid, highest)
        if _is_back(last, highest):
            break
    right = all(finding.ending is Ending.RIGHT for finding in arena.findings(arena.in_turn(apart=True)))
    return {
        "attack": trial.name,
        "answer": ending,
        "kept_mb": _more(highest, before),
        "growth_mb": _more(last, highest),
        "growth_fds": max(last.descriptors - before.descriptors, 0),
        "back_at_baseline": _is_back(last, highest) and arena.stack.pids[GATEWAY] == pid,
        "others_right": right,
    }


def _more(now: Holding, before: Holding) -> float:
    return round(max(now.resident_bytes - before.resident_bytes, 0) / 1e6, 1)


def _settled(pid: int, before: Holding) -> Holding:
    """What the gateway holds once it is back at the baseline, or after the longest wait."""
    ends = time.monotonic() + SETTLE_SECONDS
    while True:
        now = watch.holding(pid)
        if _is_back(now, before) or time.monotonic() > ends:
            return now
        time.sleep(0.5)


def _is_back(now: Holding, before: Holding) -> bool:
    within = now.resident_bytes - before.resident_bytes <= MEMORY_TOLERANCE
    return within and now.descriptors <= before.descriptors and now.resident_bytes > 0


def _counted(endings: Any) -> str:  # noqa: ANN401 - an iterable of texts
    return ", ".join(f"{count} {name}" for name, count in Counter(endings).most_common())


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    main()
