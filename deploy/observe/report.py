"""What ``make observe`` prints: quantiles out of Prometheus, budgets, and one trace as a tree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from deploy.observe.objectives import BRANCH_SECONDS, OBJECTIVES
from deploy.observe.prometheus import Prometheus, Sample
from deploy.observe.receiver import Span

QUANTILES = (0.5, 0.95, 0.99)
_LONGEST_CHILDREN = 3
"""Children of one name that are shown one by one, the longest; the others are counted."""


def latency_table(prometheus: Prometheus, title: str, histogram: str, labels: Sequence[str]) -> Table:
    """Quantiles of a histogram by some labels since the processes started; promised times where there are any."""
    promised = list(labels) == ["branch"]
    table = Table(title=title, title_justify="left", header_style="bold")
    for label in labels:
        table.add_column(label)
    table.add_column("calls", justify="right")
    for quantile in QUANTILES:
        table.add_column(f"p{quantile * 100:g}", justify="right")
    if promised:
        table.add_column("promised", justify="right")
    by = ", ".join(labels)
    counts = _by_labels(prometheus.query(f"sum by ({by}) ({histogram}_count) > 0"), labels)
    buckets = f"sum by ({by}, le) ({histogram}_bucket)"
    columns = [_by_labels(prometheus.query(f"histogram_quantile({q}, {buckets})"), labels) for q in QUANTILES]
    for key in sorted(counts):
        cells = [*key, f"{counts[key]:.0f}", *(seconds(column.get(key, math.nan)) for column in columns)]
        table.add_row(*cells, *([seconds(BRANCH_SECONDS[key[0]])] if promised else []))
    return table


def budget_table(prometheus: Prometheus) -> Table:
    """How fast each error budget burnt over the last five minutes; 1 would last 30 days."""
    table = Table(title="promises: how many times too fast budgets burnt", title_justify="left", header_style="bold")
    for column in ("objective", "of", "promised", "burn"):
        table.add_column(column, justify="right" if column in {"promised", "burn"} else "left")
    for objective in OBJECTIVES:
        for sample in prometheus.query(f'bonafide:slo_errors:ratio_rate5m{{slo="{objective.name}"}}'):
            of = ", ".join(value for name, value in sample.labels.items() if name not in {"__name__", "slo"})
            burn = sample.value / objective.budget
            shown = Text("–" if math.isnan(burn) else f"{burn:.1f}", "red" if burn > 1 else "green")
            table.add_row(objective.name, of, f"{objective.target:.1%}", shown)
    return table


def trace_tree(spans: Sequence[Span]) -> Tree | Text:
    """One trace as a tree, each span with its service, its length and when it began after the first."""
    if not spans:
        return Text("no trace arrived")
    known = {span.span_id for span in spans}
    children: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda each: each.start):
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    first = min(span.start for span in spans)
    tree = Tree(Text(f"trace {spans[0].trace_id}: {len(spans)} spans", "bold"))
    for root in children[""]:
        _grow(tree, root, children, first)
    return tree


def _grow(tree: Tree, span: Span, children: Mapping[str, Sequence[Span]], first: int) -> None:
    words = Text.assemble(
        (f"{span.service} ", "cyan"),
        span.name,
        (f"  {seconds(span.seconds)}", "bold"),
        (f"  at {seconds((span.start - first) / 1e9)}", "dim"),
        ("  failed", "red") if span.error else "",
    )
    branch = tree.add(words)
    below = children.get(span.span_id, ())
    longest = sorted(below, key=lambda each: each.seconds, reverse=True)
    counts = Counter(child.name for child in below)
    shown = {name: [each for each in longest if each.name == name][:_LONGEST_CHILDREN] for name in counts}
    for child in below:
        if child in shown[child.name]:
            _grow(branch, child, children, first)
    for name, count in counts.items():
        if count > _LONGEST_CHILDREN:
            branch.add(Text(f"{count - _LONGEST_CHILDREN} more of {name}", "dim"))


def pointers(prometheus: Prometheus, addresses: Mapping[str, str]) -> Group:
    """Where to look further."""
    lines = [Text("where to look", "bold")]
    lines += [Text(f"  metrics of {name:8} http://{address}/metrics") for name, address in addresses.items()]
    lines.append(Text(f"  ask Prometheus     {prometheus.url}/api/v1/query?query=bonafide_ready"))
    lines.append(Text(f"  alerts             {prometheus.url}/api/v1/alerts"))
    lines.append(Text("  dashboards         docs/observability.md says how to import deploy/observe/dashboards"))
    return Group(*lines)


def seconds(value: float) -> str:
    """A time for people."""
    if math.isnan(value):
        return "–"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _by_labels(samples: Sequence[Sample], labels: Sequence[str]) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.get(label, "") for label in labels): sample.value for sample in samples}
