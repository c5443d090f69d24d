"""The fleet: is it well, is anything refused, who is missing."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.observe.expressions import HERE, SERVICES, quantile, rate, total
from deploy.observe.objectives import ANALYSIS_SECONDS, OBJECTIVES
from deploy.observe.panels import COUNT, PER_SECOND, SECONDS, SHARE, Panel, Query, board, graph, listing, number, row


def fleet() -> Dashboard:
    """Is it well, is anything refused, who is missing."""
    made = board("bonafide-fleet", "fleet", "Whether clips are analysed as promised, and what is in their way.")
    row(made, "Promises: how many times too fast each error budget burns (1 lasts 30 days)", _promises())
    row(made, "How they burnt", _burns())
    row(made, "Calls", _calls())
    row(made, "Work", _work())
    row(made, "Waiting", _waiting())
    row(made, "Processes", _processes())
    return made


def _promises() -> list[Panel]:
    return [
        number(
            each.name.replace("_", " "),
            COUNT,
            Query(f'max(bonafide:slo_errors:ratio_rate1h{{slo="{each.name}",{HERE}}}) / {each.budget:g}', each.name),
            f"Budget: {each.budget:.1%} over 30 days; over the last hour. Pages at 14.4, or at 6 over six hours.",
            pages=[each.alert],
            warn=1,
            alarm=6,
        )
        for each in OBJECTIVES
    ]


def _burns() -> list[Panel]:
    burns = f"bonafide:slo_errors:ratio_rate1h{{{HERE}}} / on (slo) group_left () bonafide:slo_budget:ratio"
    legend = "{{slo}} {{branch}}{{priority}}{{component}}"
    course = "Each objective over the last hour; a page at 14.4, or at 6 over six hours."
    return [graph("Burn", COUNT, [Query(burns, legend)], course, limit=6, width=24)]


def _calls() -> list[Panel]:
    return [
        graph(
            "Calls by status",
            PER_SECOND,
            [Query(rate("bonafide_requests_total", "component, code"), "{{component}} {{code}}")],
            "Calls that ended, health checks left out.",
            pages=["BonafideAvailabilityBudgetBurn"],
        ),
        graph(
            "Errors by reason",
            PER_SECOND,
            [Query(rate("bonafide_requests_refused_total", "component, reason"), "{{component}} {{reason}}")],
            "Reasons as in docs/errors.md.",
            pages=["BonafideQueueSaturated", "BonafideNoRoom"],
        ),
        graph(
            "Calls under way",
            COUNT,
            [Query(f"sum by (component) (bonafide_requests_in_flight{{{HERE}}})", "{{component}}")],
            "What the autoscaler follows.",
        ),
    ]


def _work() -> list[Panel]:
    return [
        graph(
            "Verdicts",
            PER_SECOND,
            [Query(rate("bonafide_verdicts_total", "policy, verdict"), "{{policy}} {{verdict}}")],
            "Verdicts that were worked out.",
            stacked=True,
            pages=["BonafideAbstainRateJump"],
        ),
        graph(
            "Interactive analysis",
            SECONDS,
            [
                Query(
                    quantile(q, "bonafide_analysis_duration_seconds", where=f'priority="interactive",{HERE}'),
                    f"p{q * 100:g}",
                    exemplar=True,
                )
                for q in (0.5, 0.95, 0.99)
            ],
            "From the last byte to the verdict. Points are traces.",
            limit=ANALYSIS_SECONDS,
            pages=["BonafideAnalysisLatencyBudgetBurn"],
        ),
        graph(
            "Answers given again",
            SHARE,
            [
                Query(
                    f"{rate('bonafide_answers_reused_total', 'source')} / scalar"
                    f"({total('bonafide_answers_reused_total')} + {total('bonafide_answers_computed_total')})",
                    "{{source}}",
                )
            ],
            "Share of answers that cost nothing: the same content was judged before, or is being judged.",
        ),
    ]


def _waiting() -> list[Panel]:
    return [
        graph(
            "Waiting for a turn",
            COUNT,
            [Query(f"sum by (priority) (bonafide_admission_queue_depth{{{HERE}}})", "{{priority}}")],
            "Requests that have uploaded and wait.",
            stacked=True,
            pages=["BonafideQueueSaturated"],
        ),
        graph(
            "Age of the oldest",
            SECONDS,
            [Query(f"max by (priority) (bonafide_admission_queue_oldest_seconds{{{HERE}}})", "{{priority}}")],
            "How long the one who waits longest has waited.",
            pages=["BonafideQueueFreshnessBudgetBurn"],
        ),
        graph(
            "Open circuits",
            COUNT,
            [Query(f"sum by (peer) (bonafide_breaker_open{{{HERE}}})", "{{peer}}")],
            "Gateways that leave a service alone.",
            limit=1,
            pages=["BonafideBreakerOpen"],
        ),
    ]


def _processes() -> list[Panel]:
    return [
        graph(
            "Ready replicas",
            COUNT,
            [Query(f"sum by (component) (bonafide_ready{{{HERE}}})", "{{component}}")],
            "Replicas whose models are loaded, trained and unaltered.",
            pages=["BonafideNothingReady", "BonafideModelReadinessBudgetBurn"],
        ),
        graph(
            "Starts",
            COUNT,
            [
                Query(
                    f"sum by (component) (changes(process_start_time_seconds{{{SERVICES},{HERE}}}[30m]))",
                    "{{component}}",
                )
            ],
            "Restarts within half an hour.",
            pages=["BonafideRestarting"],
        ),
        listing(
            "What runs",
            Query(f"count by (namespace, component, version) (bonafide_build_info{{{HERE}}})", ""),
            "Version by component.",
            width=8,
        ),
    ]
