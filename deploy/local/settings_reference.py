"""Writes docs/configuration.md: every setting of every service, from the types themselves."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from services.audio.settings import AudioSettings
from services.common.settings import ServiceSettings
from services.fusion.settings import FusionSettings
from services.gateway.settings import GatewaySettings
from services.visual.settings import VisualSettings

SERVICES: tuple[type[ServiceSettings], ...] = (GatewaySettings, VisualSettings, AudioSettings, FusionSettings)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
_HEAD = """# Settings

Every setting is an environment variable, read and validated when its service starts. This page is written by
`python -m deploy.local.settings_reference` from the settings' own types; a test keeps it true.
"""


def render() -> str:
    """The page."""
    return "\n".join([_HEAD, *(line for settings in SERVICES for line in _section(settings))])


def _section(settings: type[ServiceSettings]) -> Iterator[str]:
    name = settings.__name__.removesuffix("Settings").lower()
    yield f"## {name}\n"
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    prefix = str(settings.model_config.get("env_prefix", ""))
    for field, info in settings.model_fields.items():
        yield f"| `{prefix}{field.upper()}` | {_shown(info.default)} | {info.description} |"
    yield ""


def _shown(default: object) -> str:
    value = default.value if isinstance(default, Enum) else default
    if value is None or str(value) == "":
        return "(none)"
    if isinstance(value, Path) and value.is_absolute():
        value = value.relative_to(PAGE.parents[1])
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
