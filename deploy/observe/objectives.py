"""What the service promises, and the alerts that its error budgets raise.

Each objective is one row: the share of what went wrong over a window, and how much of it is allowed over 30
days. Alerts burn-rate over two windows at a time, a long one that says it matters and a short one that says it
still goes on. Source: Beyer et al., "The Site Reliability Workbook" (2018), chapter 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WINDOW = "$window"
ANALYSES = 'method=~"Analyze|AnalyzeUri|BatchAnalyze"'
OUR_FAULT = 'code=~"UNAVAILABLE|INTERNAL|UNKNOWN|DATA_LOSS|DEADLINE_EXCEEDED"'
"""Codes that say the service failed a caller. RESOURCE_EXHAUSTED is counted by reason, for quotas are not our fault."""

OVERLOADED = "QUEUE_FULL|OVERLOADED|DEADLINE_UNMEETABLE|CALLER_SHARE_FULL"
"""Reasons of refusals because more comes in than is done."""

NO_ROOM = "MEMORY_FULL|SPOOL_FULL|UPLOADS_FULL|CALLS_FULL"
"""Reasons of refusals because something that holds uploads, clips or calls is full."""

BRANCH_SECONDS: Mapping[str, float] = {"patch": 10.0, "frame": 10.0, "temporal": 5.0, "audio": 5.0, "sync": 1.0}
"""How long each branch may take; a bound of its histogram's buckets, seconds."""

ANALYSIS_SECONDS = 25.0
"""How long an interactive analysis may take from its last byte to its verdict; a bound of its buckets, seconds."""

QUEUE_SECONDS: Mapping[str, float] = {"interactive": 10.0, "batch": 120.0, "backfill": 300.0}
"""How old the oldest request of a lane may grow before its queue counts as stale, seconds."""

SHORT_WINDOWS = ("5m", "30m", "1h", "2h", "6h")
LONG_WINDOWS = ("1d", "3d")


@dataclass(frozen=True, slots=True)
class Burn:
    """A rate at which the budget burns that somebody must know of: over both windows, ``factor`` times too fast."""

    long: str
    short: str
    factor: float


PAGE = (Burn("1h", "5m", 14.4), Burn("6h", "30m", 6))
"""2% of 30 days' budget in an hour, 5% in six: somebody gets up."""

TICKET = (Burn("1d", "2h", 3), Burn("3d", "6h", 1))
"""10% of the budget in a day or in three: somebody looks within the working day."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One promise.

    ``ratio`` is the share of bad events or of bad time over WINDOW; ``labels`` tell its series apart, besides
    the namespace. ``errors`` are the bad events of the last hour: below ``least_errors`` of them nobody is paged, for
    one failure in a quiet night is a high rate of nothing. ``summary`` and ``description`` are annotations.
    """

    name: str
    alert: str
    target: float
    ratio: str
    summary: str
    description: str
    labels: Sequence[str] = field(default=())
    errors: str = ""
    least_errors: int = 5

    @property
    def budget(self) -> float:
        """The share that may go wrong."""
        return round(1 - self.target, 6)


def _within(metric: str, seconds: Mapping[str, float], label: str, window: str) -> str:
    """Rate of observations no longer than allowed, where that differs by the value of a label."""
    by_limit: dict[float, list[str]] = {}
    for value, limit in seconds.items():
        by_limit.setdefault(limit, []).append(value)
    return " or ".join(
        f'sum by (namespace, {label}) (rate({metric}_bucket{{{label}=~"{"|".join(values)}",le="{limit}"}}[{window}]))'
        for limit, values in by_limit.items()
    )


def _late(metric: str, seconds: Mapping[str, float], label: str) -> tuple[str, str]:
    """The share of observations that took too long over WINDOW, and their number within an hour."""
    chosen = f'{label}=~"{"|".join(seconds)}"'
    total = f"sum by (namespace, {label}) (rate({metric}_count{{{chosen}}}[{WINDOW}]))"
    ratio = f"1 - ({_within(metric, seconds, label, WINDOW)}) / {total}"
    late = f"{total} - ({_within(metric, seconds, label, WINDOW)})".replace(WINDOW, "1h")
    return ratio, f"3600 * ({late})"


def _answered(window: str) -> str:
    """Rate of analyses that were answered, items of batches by themselves."""
    metrics = ("bonafide_answers_computed_total", "bonafide_answers_reused_total")
    return " + ".join(f"sum by (namespace) (rate({metric}[{window}]))" for metric in metrics)


def _failed(window: str) -> str:
    """Rate of analyses that failed for a reason of ours, or were refused for want of capacity; 0 with none."""
    nothing = f"0 * ({_answered(window)})"
    failed = f"sum by (namespace) (rate(bonafide_requests_total{{{ANALYSES},{OUR_FAULT}}}[{window}]))"
    reasons = f'component="gateway",reason=~"{OVERLOADED}|{NO_ROOM}"'
    refused = f"sum by (namespace) (rate(bonafide_requests_refused_total{{{reasons}}}[{window}]))"
    return f"(({failed} or {nothing}) + ({refused} or {nothing}))"


_BRANCH_RATIO, _BRANCH_ERRORS = _late("bonafide_branch_duration_seconds", BRANCH_SECONDS, "branch")
_ANALYSIS_RATIO, _ANALYSIS_ERRORS = _late(
    "bonafide_analysis_duration_seconds", {"interactive": ANALYSIS_SECONDS}, "priority"
)

OBJECTIVES = (
    Objective(
        name="availability",
        alert="BonafideAvailabilityBudgetBurn",
        target=0.999,
        ratio=f"{_failed(WINDOW)} / ({_answered(WINDOW)} + {_failed(WINDOW)})",
        errors=f"3600 * {_failed('1h')}",
        summary="Analyses fail or are refused",
        description="{{ $value | humanizePercentage }} of analyses failed for a reason of ours; 0.1% may.",
    ),
    Objective(
        name="branch_latency",
        alert="BonafideBranchLatencyBudgetBurn",
        target=0.99,
        ratio=_BRANCH_RATIO,
        errors=_BRANCH_ERRORS,
        labels=("branch",),
        summary="Branch {{ $labels.branch }} is slow",
        description="{{ $value | humanizePercentage }} of the answers of {{ $labels.branch }} came late; 1% may.",
    ),
    Objective(
        name="analysis_latency",
        alert="BonafideAnalysisLatencyBudgetBurn",
        target=0.95,
        ratio=_ANALYSIS_RATIO,
        errors=_ANALYSIS_ERRORS,
        labels=("priority",),
        summary="Interactive analyses are slow",
        description=f"{{{{ $value | humanizePercentage }}}} took over {ANALYSIS_SECONDS:g} s; 5% may.",
    ),
    Objective(
        name="queue_freshness",
        alert="BonafideQueueFreshnessBudgetBurn",
        target=0.99,
        ratio=f"avg_over_time(bonafide:queue_stale:max[{WINDOW}])",
        labels=("priority",),
        summary="Requests of the lane {{ $labels.priority }} wait too long",
        description="{{ $value | humanizePercentage }} of the time its oldest request was too old; 1% may be.",
    ),
    Objective(
        name="model_freshness",
        alert="BonafideModelReadinessBudgetBurn",
        target=0.99,
        ratio=f"avg_over_time(bonafide:not_ready:ratio[{WINDOW}])",
        labels=("component",),
        summary="Replicas of {{ $labels.component }} are not ready: their models are not loaded or not trusted",
        description="{{ $value | humanizePercentage }} of its replicas' time was not ready; 1% may be.",
    ),
)


def recording_rules(windows: Sequence[str]) -> list[dict[str, object]]:
    """The share of what went wrong over each window, one record for all objectives, told apart by ``slo``."""
    return [
        {
            "record": f"bonafide:slo_errors:ratio_rate{window}",
            "expr": each.ratio.replace(WINDOW, window),
            "labels": {"slo": each.name},
        }
        for each in OBJECTIVES
        for window in windows
    ]


def counting_rules() -> list[dict[str, object]]:
    """The bad events of the last hour, of objectives that count events; and every budget, for dashboards."""
    counts: list[dict[str, object]] = [
        {"record": "bonafide:slo_errors:increase1h", "expr": each.errors, "labels": {"slo": each.name}}
        for each in OBJECTIVES
        if each.errors
    ]
    return counts + [
        {"record": "bonafide:slo_budget:ratio", "expr": f"vector({each.budget:g})", "labels": {"slo": each.name}}
        for each in OBJECTIVES
    ]


def _burning(objective: Objective, burns: Sequence[Burn]) -> str:
    series = f'{{slo="{objective.name}"}}'
    return " or ".join(
        f"(bonafide:slo_errors:ratio_rate{burn.long}{series} > {burn.factor:g} * {objective.budget:g}"
        f" and bonafide:slo_errors:ratio_rate{burn.short}{series} > {burn.factor:g} * {objective.budget:g})"
        for burn in burns
    )


def alerting_rules() -> list[dict[str, object]]:
    """Two for each objective, of one name: a page while the budget burns fast, a ticket while it burns steadily."""
    rules: list[dict[str, object]] = []
    for each in OBJECTIVES:
        for severity, burns in (("page", PAGE), ("ticket", TICKET)):
            expression = _burning(each, burns)
            if each.errors and severity == "page":
                counted = f'bonafide:slo_errors:increase1h{{slo="{each.name}"}} >= {each.least_errors}'
                expression = f"({expression}) and {counted}"
            rules.append(
                {
                    "alert": each.alert,
                    "expr": expression,
                    "for": "2m" if severity == "page" else "15m",
                    "labels": {"severity": severity},
                    "annotations": {"summary": each.summary, "description": each.description},
                }
            )
    return rules
