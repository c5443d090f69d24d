"""Everything that is done to the system while it works: how each fault begins and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability import sandbox
from benchmarks.reliability.arena import Arena, CampaignError
from deploy.topology import TRITON

STOPPED_SECONDS = 5.0
STUB_MODEL = "frame_classifier"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
FILLER = "bonafide-campaign-filler"
JUMP_SECONDS = 86_400 // 2
PROCESSES = ("visual", "audio", "fusion", "gateway-2", TRITON)

Action = Callable[[Arena], None]


def nothing(_arena: Arena) -> None:
    """The fault ends by itself, or the supervisor mends it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``begin`` starts it, ``end`` takes it away ``hold_seconds`` later.

    ``repeat_seconds`` begins it again and again while it holds; ``needs`` names what the campaign must have been
    able to set up.
    """

    name: str
    begin: Action
    end: Action = nothing
    hold_seconds: float = 0.0
    repeat_seconds: float = 0.0
    needs: str = ""


def faults() -> list[Fault]:
    """All of them, in the order in which they are tried."""
    return [
        Fault("none", nothing),
        *(Fault(f"SIGKILL {name}", _signal(name, signal.SIGKILL)) for name in PROCESSES),
        Fault("SIGKILL model stub", _kill_stub),
        *(_stopped(name) for name in PROCESSES),
        Fault("SIGSTOP model stub", _signal_stub(signal.SIGSTOP), _signal_stub(signal.SIGCONT), STOPPED_SECONDS),
        Fault("resets to visual", _reset_visual, hold_seconds=5.0, repeat_seconds=0.5),
        Fault("resets to gateways", _reset_clients, hold_seconds=5.0, repeat_seconds=0.5),
        Fault("10x slower link", _slow, _fast, hold_seconds=8.0, needs="sandbox"),
        Fault("full disk", _fill_disk, _empty_disk, hold_seconds=6.0, needs="sandbox"),
        Fault("full /dev/shm", _fill_shared_memory, _empty_shared_memory, hold_seconds=6.0, needs="sandbox"),
        Fault("expired certificate pushed", _push_expired, _renew, hold_seconds=8.0, needs="certificates"),
        Fault("certificate expires in force", _push_brief, _renew, hold_seconds=16.0, needs="certificates"),
        Fault("clock 12 h ahead", _jump, _jump_back, hold_seconds=6.0, needs="faketime"),
        Fault("corrupted model push", _corrupt, _restore, hold_seconds=12.0),
    ]


def _signal(name: str, number: signal.Signals) -> Action:
    return lambda arena: os.kill(arena.stack.pids[name], number)


def _stopped(name: str) -> Fault:
    return Fault(f"SIGSTOP {name}", _signal(name, signal.SIGSTOP), _signal(name, signal.SIGCONT), STOPPED_SECONDS)


def _signal_stub(number: signal.Signals) -> Action:
    return lambda arena: os.kill(arena.stub(STUB_MODEL), number)


def _kill_stub(arena: Arena) -> None:
    os.kill(arena.stub(STUB_MODEL), signal.SIGKILL)


def _reset_visual(arena: Arena) -> None:
    assert arena.visual_link is not None
    arena.visual_link.reset()


def _reset_clients(arena: Arena) -> None:
    for link in arena.client_links:
        link.reset()


def _slow(_arena: Arena) -> None:
    sandbox.set_rate(sandbox.SLOW_RATE)


def _fast(_arena: Arena) -> None:
    sandbox.set_rate(sandbox.FAST_RATE)


def spool_directory(arena_directory: Path) -> Path:
    """Where the gateways of a campaign keep uploads that do not fit into memory."""
    return arena_directory / "spool"


def _fill(directory: Path) -> None:
    """Write until nothing more fits."""
    with (directory / FILLER).open("wb", buffering=0) as file:
        for block in _shrinking_blocks():
            try:
                while file.write(block) == len(block):
                    pass
            except OSError:
                continue


def _shrinking_blocks() -> Iterator[bytes]:
    for power in (20, 16, 12, 8, 0):
        yield bytes(1 << power)


def _fill_disk(arena: Arena) -> None:
    _fill(spool_directory(arena.directory))


def _empty_disk(arena: Arena) -> None:
    (spool_directory(arena.directory) / FILLER).unlink()


def _fill_shared_memory(_arena: Arena) -> None:
    _fill(SHARED_MEMORY)


def _empty_shared_memory(_arena: Arena) -> None:
    (SHARED_MEMORY / FILLER).unlink()


def _push_expired(arena: Arena) -> None:
    assert arena.certificates is not None
    arena.certificates.push_expired("visual")


def _push_brief(arena: Arena) -> None:
    assert arena.certificates is not None
    arena.certificates.push_brief("visual")


def _renew(arena: Arena) -> None:
    assert arena.certificates is not None
    arena.certificates.renew("visual")


def clock_file(arena_directory: Path) -> Path:
    """What libfaketime reads the offset of the wall clock from."""
    return arena_directory / "clock"


def clock_environment(arena_directory: Path) -> dict[str, str]:
    """Environment under which processes live by ``clock_file``; the monotonic clock stays true.

    Raises:
        CampaignError: libfaketime is not installed.
    """
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise CampaignError("libfaketime is not installed (Debian package faketime)")
    clock_file(arena_directory).parent.mkdir(parents=True, exist_ok=True)
    clock_file(arena_directory).write_text("+0\n", encoding="ascii")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock_file(arena_directory)),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }


def _jump(arena: Arena) -> None:
    clock_file(arena.directory).write_text(f"+{JUMP_SECONDS}\n", encoding="ascii")


def _jump_back(arena: Arena) -> None:
    clock_file(arena.directory).write_text("+0\n", encoding="ascii")


def _model_file(arena: Arena) -> Path:
    return arena.repository / STUB_MODEL / "1" / "model.onnx"


def _corrupt(arena: Arena) -> None:
    file = _model_file(arena)
    shutil.copy(file, file.with_suffix(".kept"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _restore(arena: Arena) -> None:
    _model_file(arena).with_suffix(".kept").replace(_model_file(arena))


def chosen(names: Sequence[str], available: frozenset[str]) -> list[Fault]:
    """The faults of some names (all when empty) that what is available lets one try."""
    return [
        fault
        for fault in faults()
        if (not names or fault.name in names) and (not fault.needs or fault.needs in available)
    ]
