"""Nothing asks for a metric or a label that nobody declares."""

from __future__ import annotations

import re
from functools import cache

import grpc
import pytest

from bonafide.v1 import analysis_pb2
from deploy.observe.objectives import OBJECTIVES
from deploy.topology import COMPONENTS, ROOT
from services.common.evidence import Branch, Outcome, Verdict
from services.common.telemetry import DECLARED, Histogram
from services.gateway.analysis import Priority
from tests.observe.expressions import (
    everything_asked,
    filled,
    grouping_labels,
    panels,
    rules,
    selectors,
)

TARGET_LABELS = frozenset({"namespace", "component", "instance"})
OF_CLIENT_LIBRARY = {
    "process_cpu_seconds_total": set(),
    "process_resident_memory_bytes": set(),
    "process_start_time_seconds": set(),
    "process_open_fds": set(),
    "process_max_fds": set(),
    "python_gc_collections_total": {"generation"},
}
VALUES = {
    "outcome": {each.value for each in Outcome},
    "branch": {each.value for each in Branch},
    "verdict": {each.value for each in Verdict},
    "priority": {each.value for each in Priority},
    "code": {each.name for each in grpc.StatusCode},
    "method": {
        method.name for service in analysis_pb2.DESCRIPTOR.services_by_name.values() for method in service.methods
    },
    "reason": set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "errors.md").read_text(), flags=re.MULTILINE)),
    "component": {*(each.name for each in COMPONENTS), "triton.*"},
    "slo": {each.name for each in OBJECTIVES},
}
OF_PROMETHEUS = {"up": set()}
OF_TRITON = re.compile(r"nv_(inference|gpu)_\w+")
ASKED = list(everything_asked())


@cache
def known() -> dict[str, frozenset[str]]:
    """Labels of every series, by name; those that are recorded have the labels of what they are made of."""
    labels = {name: frozenset(mine) for name, mine in (OF_CLIENT_LIBRARY | OF_PROMETHEUS).items()}
    for metric in DECLARED:
        if isinstance(metric, Histogram):
            labels |= {f"{metric.name}{end}": frozenset(metric.labels) for end in ("_count", "_sum")}
            labels[f"{metric.name}_bucket"] = frozenset({*metric.labels, "le"})
        else:
            labels[metric.name] = frozenset(metric.labels)
    for rule in rules():
        if "record" in rule:
            parts = [labels.get(part.metric, frozenset()) for part in selectors(rule["expr"])]
            labels[rule["record"]] = labels.get(rule["record"], frozenset()).union(*parts, rule.get("labels", {}))
    return labels


@pytest.mark.parametrize("expression", [text for _, text in ASKED], ids=[place for place, _ in ASKED])
def test_every_expression_asks_for_declared_metrics_and_labels(expression: str) -> None:
    wanted = selectors(expression)
    allowed = set(TARGET_LABELS)
    for selector in wanted:
        if OF_TRITON.fullmatch(selector.metric):
            allowed |= {"model", "version", "reason", "gpu_uuid"}
            continue
        assert selector.metric in known(), selector.metric
        mine = known()[selector.metric] | TARGET_LABELS
        assert {name for name, _ in selector.matchers} <= mine, selector
        allowed |= mine
    assert grouping_labels(expression) <= allowed


@pytest.mark.parametrize("label", VALUES)
def test_every_value_that_is_compared_with_exists(label: str) -> None:
    asked = {
        value
        for _, expression in ASKED
        for selector in selectors(expression)
        for name, pattern in selector.matchers
        for value in pattern.split("|")
        if name == label
    }
    assert asked
    assert asked <= VALUES[label]


def test_every_bound_that_is_asked_for_is_a_bound_of_the_histogram() -> None:
    bounds = {f"{each.name}_bucket": {*each.buckets} for each in DECLARED if isinstance(each, Histogram)}
    asked = 0
    for _, expression in ASKED:
        for selector in selectors(expression):
            for name, value in selector.matchers:
                if name == "le" and value != "+Inf" and selector.metric in bounds:
                    assert float(value) in bounds[selector.metric], selector
                    assert value == str(float(value))  # as the client library writes it
                    asked += 1
    assert asked


def test_every_declared_metric_is_shown_on_a_dashboard_or_recorded() -> None:
    shown = {
        part.metric
        for _, panel in panels()
        for target in panel["targets"]
        for part in selectors(filled(target["expr"]))
    }
    for _ in range(2):  # what recorded series are made of
        for rule in rules():
            if rule.get("record") in shown:
                shown |= {part.metric for part in selectors(rule["expr"])}
    missing = {
        metric.name for metric in DECLARED if not shown & {metric.name, f"{metric.name}_bucket", f"{metric.name}_count"}
    }
    assert missing == set()
