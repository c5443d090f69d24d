"""Measures what the capacity model is made of: ``python -m benchmarks.capacity.measure`` (``make capacity-measure``).

Of each clip class, on the whole stack as real processes: processor seconds and resident memory of each process. In
one process beside it: the bytes of every message between services, and of each network how often it is called, with
how many items. What a network costs on a GPU is not measured; its arithmetic is counted instead.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.capacity.arithmetic import arithmetic
from benchmarks.clips import CLASSES, ClipClass, kept_clip
from benchmarks.processor_time import processor_seconds
from bonafide.client import Client
from deploy.local.stack import ROOT, Stack, StackOptions
from services.audio.pipeline import AudioPipeline
from services.audio.settings import AudioSettings
from services.common.evidence import VISUAL_BRANCHES, Branch
from services.common.inference import Array, EmbeddedEngine
from services.common.models import ModelRepository
from services.gateway.converters import speech_request
from services.gateway.decoding import decode
from services.gateway.faces_request import faces_request
from services.gateway.limits import DecodeLimits
from services.gateway.sampling import SamplingPlan
from services.visual.pipeline import VisualPipeline
from services.visual.settings import VisualSettings

OUT = ROOT / "docs" / "capacity" / "measured.json"
CACHE = ROOT / ".cache" / "benchmark"
ROUNDS = 2
TOGETHER = 2
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory
_LONG = 600.0


@dataclass(slots=True)
class ModelUse:
    """What one clip asks of one network: calls, items in all of them, bytes there and back."""

    calls: int = 0
    items: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class CountingEngine:
    """An embedded engine that counts what Triton would be asked."""

    kind = "embedded"

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine
        self.use: dict[str, ModelUse] = defaultdict(ModelUse)

    async def infer(self, model: str, inputs: Mapping[str, Array], *, timeout: float) -> dict[str, Array]:
        """See InferenceEngine."""
        outputs = await self._engine.infer(model, inputs, timeout=timeout)
        use = self.use[model]
        use.calls += 1
        use.items += len(next(iter(inputs.values())))
        use.bytes_in += sum(values.nbytes for values in inputs.values())
        use.bytes_out += sum(values.nbytes for values in outputs.values())
        return outputs

    async def close(self) -> None:
        """See InferenceEngine."""
        await self._engine.close()


def main() -> None:
    """Measure everything and write it down."""
    repository = ModelRepository(ROOT / "model_repository")
    options = StackOptions(
        run_directory=ROOT / ".run" / "capacity",
        environment={
            "BONAFIDE_GATEWAY_ANSWERS_BYTES": "0",  # or all rounds but the first would cost nothing
            **{f"BONAFIDE_{name}_TRITON_SHARED_REGIONS": "0" for name in ("VISUAL", "AUDIO", "FUSION")},  # as in pods
        },
    )
    with Stack(options, say=lambda _: None) as stack:
        idle = {name: resident_bytes(pid) for name, pid in stack.pids.items()}
        clips = {kind.name: _measured(kind, stack, repository) for kind in CLASSES}
        together = _together(stack, kept_clip(CLASSES[2], CACHE))
        shared = sum(file.stat().st_blocks * 512 for file in SHARED_MEMORY.glob("bonafide-*"))
    report = {
        "idle_bytes": idle,
        "peak_bytes_with_two_1080p_clips_at_once": together,
        "triton_shared_memory_bytes": shared,
        "clips": clips,
        "models": {name: dataclasses.asdict(arithmetic(repository, name)) for name in repository.names()},
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(OUT.relative_to(ROOT))


def resident_bytes(pid: int) -> int:
    """Most memory that a process and its descendants have held at once, each by itself."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (peak,) = (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]
    return peak + sum(resident_bytes(child) for child in children)


def _measured(kind: ClipClass, stack: Stack, repository: ModelRepository) -> dict[str, Any]:
    clip = kept_clip(kind, CACHE)
    spent: dict[str, list[float]] = defaultdict(list)
    with Client(stack.gateway) as client:
        for turn in range(ROUNDS + 1):
            before = {name: processor_seconds(pid) for name, pid in stack.pids.items()}
            client.analyze(clip)
            if turn:  # the first warms caches and allocators
                for name, pid in stack.pids.items():
                    spent[name].append(processor_seconds(pid) - before[name])
    return {
        "file_bytes": clip.stat().st_size,
        "processor_seconds": {name: round(statistics.median(values), 3) for name, values in spent.items()},
        "peak_bytes": {name: resident_bytes(pid) for name, pid in stack.pids.items()},
        **asyncio.run(_counted(clip, repository)),
    }


async def _counted(clip: Path, repository: ModelRepository) -> dict[str, Any]:
    """Message sizes and calls of one clip."""
    engine = CountingEngine(EmbeddedEngine(repository))
    with clip.open("rb") as file:
        media = decode(file, SamplingPlan(), DecodeLimits(), lambda: False)
    hops = {}
    if media.survey or media.dense:
        branches = frozenset(VISUAL_BRANCHES)
        hops["gateway_to_visual"] = len(faces_request(media.survey, media.dense, branches))
        await VisualPipeline(engine, VisualSettings()).analyze(media.survey, media.dense, branches, timeout=_LONG)
    if media.audio is not None:
        hops["gateway_to_audio"] = speech_request(media.audio, frozenset({Branch.AUDIO})).ByteSize()
        plan = AudioSettings().window_plan()
        await AudioPipeline(engine, repository, plan).analyze(media.audio, frozenset({Branch.AUDIO}), timeout=_LONG)
    return {"hop_bytes": hops, "model_use": {name: dataclasses.asdict(use) for name, use in engine.use.items()}}


def _together(stack: Stack, clip: Path) -> dict[str, int]:
    """Peaks after several clips at once; each has other bytes, or the gateway would work on them once."""

    def analyze(number: int) -> None:
        box = (12).to_bytes(4) + b"free" + number.to_bytes(4)  # an MP4 box that means nothing
        with Client(stack.gateway) as client:
            client.analyze(clip.read_bytes() + box)

    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(analyze, range(TOGETHER)))
    return {name: resident_bytes(pid) for name, pid in stack.pids.items()}


if __name__ == "__main__":
    main()
