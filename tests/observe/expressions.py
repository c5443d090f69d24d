"""Reads what rules, dashboards and runbooks ask of Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import promql_parser
import yaml

from deploy.observe.files import DASHBOARDS, RULES, RUNBOOKS

VARIABLES = {
    "$__rate_interval": "5m",
    "$namespace": ".*",
    "$core_hour": "0.045",
    "$gpu_hour": "0.8",
}


@dataclass(frozen=True)
class Selector:
    """One metric as an expression asks for it, with the values that its labels are compared with."""

    metric: str
    matchers: tuple[tuple[str, str], ...]


def filled(expression: str) -> str:
    """An expression of a dashboard with its variables filled in."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def selectors(expression: str) -> list[Selector]:
    """Every metric that an expression asks for."""
    found: list[Selector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            matchers = tuple((matcher.name, matcher.value) for matcher in node.matchers.matchers)
            found.append(Selector(node.name, matchers))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return list(dict.fromkeys(found))


def grouping_labels(expression: str) -> set[str]:
    """Labels by which an expression groups, keeps or matches series."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            found.update(node.modifier.matching.labels)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@cache
def rule_groups() -> list[dict]:
    return yaml.safe_load(RULES.read_text())["groups"]


def rules() -> Iterator[dict]:
    for group in rule_groups():
        yield from group["rules"]


def alerts() -> list[dict]:
    return [rule for rule in rules() if "alert" in rule]


def dashboards() -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json"))}


def panels() -> Iterator[tuple[str, dict]]:
    """Every panel of every dashboard that shows something."""
    for name, board in dashboards().items():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield name, panel


def runbook_pages() -> dict[str, str]:
    return {file.stem: file.read_text() for file in sorted(RUNBOOKS.glob("Bonafide*.md"))}


def runbook_queries(text: str) -> list[str]:
    blocks = re.findall(r"```promql\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def everything_asked() -> Iterator[tuple[str, str]]:
    """Every expression of the project: where it stands, and its text with variables filled in."""
    for rule in rules():
        yield f"{RULES.name}: {rule.get('alert', rule.get('record'))}", rule["expr"]
    for name, panel in panels():
        for target in panel["targets"]:
            yield f"{name}.json: {panel['title']}", filled(target["expr"])
    for name, text in runbook_pages().items():
        for query in runbook_queries(text):
            yield f"{name}.md", query


def page_path(url: str, base: str) -> Path:
    """The file of docs/runbooks that an address stands for."""
    assert url.startswith(base + "/")
    return RUNBOOKS / url.removeprefix(base + "/")
