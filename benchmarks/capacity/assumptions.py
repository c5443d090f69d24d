"""Everything in the capacity model that was not measured. Change it here; docs/capacity.md repeats it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field


def _means(text: str, default: float) -> float:
    value: float = field(default=default, metadata={"meaning": text})
    return value


@dataclass(frozen=True, slots=True)
class Assumptions:
    """One page of them, each with its meaning."""

    mix: Mapping[str, float] = field(
        default_factory=lambda: {"360p 10 s": 0.35, "720p 10 s": 0.35, "1080p 10 s": 0.15, "720p 60 s": 0.15},
        metadata={"meaning": "Share of each clip class among the clips that arrive."},
    )
    core_speed: float = _means("Speed of a core there, in cores of the machine that was measured.", 1.0)
    spread: float = _means("Coefficient of variation of a stage's time around the mean of its class (lognormal).", 0.5)
    node_cores: float = _means("Cores of a service node.", 16)
    node_gigabits: float = _means("Network of a node, Gbit/s.", 25)
    network_share: float = _means("Share of that network that may be used before queues grow.", 0.6)
    gpu_teraflops: float = _means("Single-precision peak of one GPU (an inference card of the L4 class).", 30)
    gpu_efficiency: float = _means("Share of that peak that convolutions of this size reach.", 0.15)
    gpu_operator_microseconds: float = _means("Time to start one operator on the GPU, microseconds.", 8)
    gpu_batch_gain: float = _means("Requests that Triton joins into one batch under load.", 2)
    pod_seconds: float = _means("From the wish for a pod to its first call, on a node that is there, seconds.", 25)
    node_seconds: float = _means("The same when a node must be bought first, seconds.", 150)
    gpu_node_seconds: float = _means("The same for a GPU node, with its drivers and the large image, seconds.", 360)
    spare_share: float = _means("Share of a pool that fits on nodes that are already there.", 0.2)
    patience_seconds: float = _means("Work that may wait in a gateway before it refuses, seconds of its time.", 20)
    core_hour: float = _means("Price of a core for an hour with its memory, USD.", 0.045)
    gpu_hour: float = _means("Price of a GPU for an hour with its node, USD.", 0.80)
    zone_gigabyte: float = _means("Price of a gigabyte from zone to zone, both directions together, USD.", 0.02)

    def lines(self) -> list[tuple[str, str, str]]:
        """Name, value and meaning of each."""
        return [
            (each.name, _shown(getattr(self, each.name)), each.metadata["meaning"]) for each in dataclasses.fields(self)
        ]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {share:.0%}" for name, share in value.items())
    return f"{value:g}"
