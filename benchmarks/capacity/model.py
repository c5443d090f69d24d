"""What a clip costs at each stage, and what a rate of clips therefore needs: measured costs times assumptions."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.capacity.assumptions import Assumptions

MEASURED = Path(__file__).resolve().parents[2] / "docs" / "capacity" / "measured.json"
STAGES = ("gateway", "visual", "audio", "fusion", "triton")


@dataclass(frozen=True, slots=True)
class ClipCost:
    """A mean clip of the mix.

    ``cores`` are processor seconds by stage, Triton's those of its CPU pool; ``gpu`` seconds of one GPU instead;
    bytes are those of each hop.
    """

    cores: dict[str, float]
    gpu: float
    file_bytes: float
    visual_bytes: float
    audio_bytes: float
    triton_bytes: float

    @property
    def network_bytes(self) -> float:
        """Bytes that cross between pods."""
        return self.visual_bytes + self.audio_bytes + self.triton_bytes


@dataclass(frozen=True, slots=True)
class Needs:
    """What a steady rate needs at a utilisation, and what it costs.

    ``nodes`` run the services: as many as their cores need, or as their network does, whichever is more.
    """

    clips_a_minute: float
    cores: dict[str, float]
    nodes: float
    gpus: int
    gigabits: float
    usd_an_hour: float
    usd_a_thousand: float
    zone_usd_a_thousand: float


def mean_clip(assumed: Assumptions, measured: dict[str, Any]) -> ClipCost:
    """The mean clip of the mix."""
    clips = {name: measured["clips"][name] for name in assumed.mix}

    def mean(values: dict[str, float]) -> float:
        return sum(share * values[name] for name, share in assumed.mix.items())

    def hop(name: str) -> float:
        return mean({kind: clip["hop_bytes"].get(name, 0) for kind, clip in clips.items()})

    cores = {
        stage: mean({kind: clip["processor_seconds"].get(stage, 0.0) for kind, clip in clips.items()})
        / assumed.core_speed
        for stage in STAGES
    }
    triton_bytes = {
        kind: sum(use["bytes_in"] + use["bytes_out"] for use in clip["model_use"].values())
        for kind, clip in clips.items()
    }
    return ClipCost(
        cores=cores,
        gpu=mean({kind: gpu_seconds(clip["model_use"], measured["models"], assumed) for kind, clip in clips.items()}),
        file_bytes=mean({kind: clip["file_bytes"] for kind, clip in clips.items()}),
        visual_bytes=hop("gateway_to_visual"),
        audio_bytes=hop("gateway_to_audio"),
        triton_bytes=mean(triton_bytes),
    )


def gpu_seconds(use: dict[str, Any], models: dict[str, Any], assumed: Assumptions) -> float:
    """Time of one clip on a GPU: starting operators, and multiplying. Not measured: from counted arithmetic."""
    speed = assumed.gpu_teraflops * 1e12 * assumed.gpu_efficiency / 2  # a multiply-accumulate is two operations
    starting = assumed.gpu_operator_microseconds * 1e-6 / assumed.gpu_batch_gain
    seconds: float = sum(
        count["calls"] * models[name]["operators"] * starting + count["items"] * models[name]["multiplications"] / speed
        for name, count in use.items()
    )
    return seconds


def needs(rate: float, cost: ClipCost, assumed: Assumptions, *, utilisation: float = 0.6) -> Needs:
    """Machines for a steady rate of clips a minute on GPU pools."""
    a_second = rate / 60
    cores = {stage: a_second * cost.cores[stage] / utilisation for stage in STAGES if stage != "triton"}
    gpus = max(1, math.ceil(a_second * cost.gpu / utilisation))
    gigabits = a_second * cost.network_bytes * 8 / 1e9
    by_network = gigabits / (assumed.node_gigabits * assumed.network_share)
    nodes = max(sum(cores.values()) / assumed.node_cores, by_network)
    usd = nodes * assumed.node_cores * assumed.core_hour + gpus * assumed.gpu_hour
    crossing = cost.network_bytes * 2 / 3 / 1e9 * assumed.zone_gigabyte * 1000  # three zones, two hops in three cross
    return Needs(rate, cores, nodes, gpus, gigabits, usd, usd / (rate * 60) * 1000, crossing)


def network_seconds(cost: ClipCost, assumed: Assumptions) -> float:
    """Time of one clip on the network of one node."""
    return cost.network_bytes * 8 / (assumed.node_gigabits * assumed.network_share * 1e9)


def load_measured() -> dict[str, Any]:
    """What ``make capacity-measure`` wrote."""
    content: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return content
