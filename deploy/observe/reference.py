"""Writes docs/observability.md: what is exported, promised and alerted on, from the declarations themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from string import Template

from deploy.observe import alerts
from deploy.observe.objectives import ANALYSIS_SECONDS, BRANCH_SECONDS, OBJECTIVES, QUEUE_SECONDS
from services.common.telemetry import DECLARED, SERVICES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "observability.md"
_TEMPLATE = Path(__file__).with_name("page.md")
_PROMISES = {
    "availability": "analyses neither fail for a reason of ours nor are refused for want of capacity",
    "branch_latency": "a branch answers within "
    + ", ".join(f"{seconds:g} s ({branch})" for branch, seconds in BRANCH_SECONDS.items()),
    "analysis_latency": f"an interactive analysis takes at most {ANALYSIS_SECONDS:g} s from its last byte",
    "queue_freshness": "nobody waits longer than "
    + ", ".join(f"{seconds:g} s ({lane})" for lane, seconds in QUEUE_SECONDS.items()),
    "model_freshness": "replicas are ready: their models loaded, trained and unaltered",
}


def render() -> str:
    """The page."""
    tables = {"metrics": _metrics(), "objectives": _objectives(), "alerts": _alerts()}
    text = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return text.safe_substitute({name: "\n".join(lines) for name, lines in tables.items()})


def _metrics() -> Iterator[str]:
    for metric in DECLARED:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        services = "all" if metric.services == SERVICES else ", ".join(sorted(metric.services))
        yield f"| `{metric.name}` | {type(metric).__name__.lower()} | {labels} | {services} | {metric.meaning} |"


def _objectives() -> Iterator[str]:
    for each in OBJECTIVES:
        page = f"[{each.alert}](runbooks/{each.alert}.md)"
        yield f"| {each.name} | {_PROMISES[each.name]} | {each.target:.1%} | {page} |"


def _alerts() -> Iterator[str]:
    for each in OBJECTIVES:
        yield _alert(each.alert, "page or ticket", f"{each.summary}: the budget burns")
    for alert in (*alerts.HEALTH, *alerts.CAPACITY, *alerts.BRANCHES, *alerts.MODELS):
        lasting = "" if alert.lasting == "0m" else f", for {alert.lasting}"
        yield _alert(alert.name, alert.severity, f"{alert.summary}{lasting}")


def _alert(name: str, severity: str, words: str) -> str:
    """One row; labels that Prometheus would fill in become capitals."""
    plain = re.sub(r"{{ \$labels\.(\w+) }}", lambda match: match.group(1).upper(), words)
    return f"| [{name}](runbooks/{name}.md) | {severity} | {plain} |"
