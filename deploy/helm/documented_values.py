"""Reads ``values.yaml`` with its comments: every value, what it means and what it is by default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "bonafide"
VALUES = CHART / "values.yaml"
_MARK = "# -- "


class UndocumentedValueError(Exception):
    """A value has no comment; says which."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its keys from the top, its default, and its comment."""

    path: tuple[str, ...]
    default: Any
    meaning: str

    @property
    def name(self) -> str:
        """The path with dots, as ``--set`` takes it."""
        return ".".join(self.path)


def documented_values(text: str) -> list[Value]:
    """Every documented value in the order of the file.

    A key right under a ``# --`` comment is a value, whatever it holds; any other key must hold more keys.

    Raises:
        UndocumentedValueError: a key has neither.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return list(_walk(root, (), text.splitlines()))


def _walk(node: yaml.Node | None, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise UndocumentedValueError(".".join(path))
    for key, value in node.value:
        here = (*path, key.value)
        above = lines[key.start_mark.line - 1].strip() if key.start_mark.line else ""
        if above.startswith(_MARK):
            yield Value(here, _plain(value), above.removeprefix(_MARK))
        else:
            yield from _walk(value, here, lines)


def _plain(node: yaml.Node) -> Any:  # noqa: ANN401 - whatever YAML holds
    return yaml.safe_load(yaml.serialize(node))
