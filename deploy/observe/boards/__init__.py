"""The dashboards, one module each."""

from __future__ import annotations

from deploy.observe.boards.capacity import capacity
from deploy.observe.boards.fleet import fleet
from deploy.observe.boards.latency import latency
from deploy.observe.boards.models import models
from deploy.observe.panels import rendered

BOARDS = {"fleet": fleet, "latency": latency, "models": models, "capacity": capacity}


def files() -> dict[str, str]:
    """Each dashboard's file name and content."""
    return {f"{name}.json": rendered(make()) for name, make in BOARDS.items()}
