"""Where a growing load breaks first: every limit that is known, as clips a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.capacity.assumptions import Assumptions
from benchmarks.capacity.model import ClipCost
from services.common.settings import ServiceSettings

VALUES = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "bonafide" / "values.yaml"


@dataclass(frozen=True, slots=True)
class Limit:
    """What breaks, at how many clips a minute, and what moves it."""

    clips_a_minute: float
    what: str
    remedy: str


def limits(cost: ClipCost, assumed: Assumptions) -> list[Limit]:
    """All of them, the first to break first."""
    values: dict[str, Any] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    found = [_most_pods(name, values[name], cost) for name in ("gateway", "visual", "audio", "fusion")]
    pool = values["triton"]["defaults"]
    found.append(
        Limit(
            pool["replicas"] * pool["gpus"] * 60 / cost.gpu,
            f"the default pool of {pool['replicas'] * pool['gpus']} GPUs is full (estimated, not measured)",
            "triton.profiles.all.autoscaling, or more replicas",
        )
    )
    found.append(_connections(values["gateway"], cost))
    usable = assumed.node_gigabits * assumed.network_share * 1e9 / 8
    by_network = usable / cost.visual_bytes * 60
    found.append(
        Limit(
            by_network,
            f"one node that holds nothing but gateways fills its network ({assumed.node_gigabits:g} Gbit/s)",
            "spread gateways over nodes (the chart does), or use nodes with more network",
        )
    )
    return sorted(found, key=lambda each: each.clips_a_minute)


def _most_pods(name: str, values: dict[str, Any], cost: ClipCost) -> Limit:
    scaling = values["autoscaling"]
    pods = scaling["maxReplicas"] if scaling["enabled"] else values["replicas"]
    key = f"{name}.autoscaling.maxReplicas" if scaling["enabled"] else f"{name}.replicas"
    request = str(values["resources"]["requests"]["cpu"])
    cores = float(request[:-1]) / 1000 if request.endswith("m") else float(request)
    rate = pods * cores / cost.cores[name] * 60
    return Limit(rate, f"{pods} {name} pods of {request} CPU are full", key)


def _connections(gateway: dict[str, Any], cost: ClipCost) -> Limit:
    """Every gateway keeps a connection to every visual pod, which takes only so many."""
    most = int(ServiceSettings.model_fields["max_connections"].default)
    rate = most * float(gateway["resources"]["requests"]["cpu"]) * 0.6 / cost.cores["gateway"] * 60
    return Limit(rate, f"more than {most} gateways: a visual pod refuses their connections", "cells (several releases)")
