"""Alerts on causes: what an operator can act on before, or besides, a budget that burns."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.observe.objectives import NO_ROOM, OVERLOADED

SERVICES = 'component=~"gateway|visual|audio|fusion"'
TARGETS = 'component=~"gateway|visual|audio|fusion|triton.*"'
DISAGREEMENT = "0.25"
"""Difference of probability from which two models disagree; a bound of the histogram's buckets."""

LEAST_DRIFT = 0.15
"""Largest distance of two score distributions that is nobody's business, however sure it is."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert: fires when ``expression`` has held for ``lasting``. Its page in docs/runbooks has its name."""

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    description: str

    def rule(self) -> dict[str, object]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.lasting,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.description},
        }


def _refused(reasons: str) -> str:
    return (
        f'sum by (namespace, component, reason) (rate(bonafide_requests_refused_total{{reason=~"{reasons}"}}[10m]))'
        " / on (namespace, component) group_left ()"
        " sum by (namespace, component) (rate(bonafide_requests_total[10m])) > 0.01"
    )


HEALTH = (
    Alert(
        "BonafideTargetDown",
        f"up{{{TARGETS}}} == 0",
        "5m",
        "ticket",
        "A {{ $labels.component }} cannot be scraped",
        "{{ $labels.instance }} has not answered Prometheus for five minutes.",
    ),
    Alert(
        "BonafideNothingReady",
        "max by (namespace, component) (bonafide_ready) == 0",
        "2m",
        "page",
        "No replica of {{ $labels.component }} is ready",
        "Every analysis that needs {{ $labels.component }} fails or goes without it.",
    ),
    Alert(
        "BonafideMetricsAbsent",
        "absent(bonafide_build_info)",
        "5m",
        "page",
        "Prometheus sees nothing of Bonafide",
        "Nothing is scraped, so no other alert can fire.",
    ),
    Alert(
        "BonafideRestarting",
        f"changes(process_start_time_seconds{{{SERVICES}}}[30m]) >= 3",
        "0m",
        "ticket",
        "A {{ $labels.component }} restarts again and again",
        "{{ $labels.instance }} started {{ $value }} times within half an hour.",
    ),
    Alert(
        "BonafideBreakerOpen",
        "max by (namespace, peer) (bonafide_breaker_open) > 0",
        "1m",
        "page",
        "Gateways leave {{ $labels.peer }} alone: it kept failing",
        "Verdicts are formed without it, or not at all.",
    ),
)

CAPACITY = (
    Alert(
        "BonafideQueueSaturated",
        _refused(OVERLOADED),
        "10m",
        "page",
        "A {{ $labels.component }} refuses work: {{ $labels.reason }}",
        "{{ $value | humanizePercentage }} of its calls are refused, for more comes in than is done.",
    ),
    Alert(
        "BonafideNoRoom",
        _refused(NO_ROOM),
        "10m",
        "page",
        "A {{ $labels.component }} refuses work: {{ $labels.reason }}",
        "{{ $value | humanizePercentage }} of its calls are refused, for memory, disk or places are full.",
    ),
    Alert(
        "BonafideTritonRejecting",
        "sum by (namespace, model, reason) (rate(bonafide_model_rejections_total[10m]))"
        " / on (namespace, model) group_left ()"
        " sum by (namespace, model) (rate(bonafide_model_calls_total[10m])) > 0.01",
        "5m",
        "ticket",
        "Triton rejects calls to {{ $labels.model }}: {{ $labels.reason }}",
        "{{ $value | humanizePercentage }} of its calls; callers wait and try again, then the branch fails.",
    ),
    Alert(
        "BonafideTritonQueueing",
        "sum by (namespace, model) (rate(nv_inference_queue_duration_us[10m]))"
        " / sum by (namespace, model) (rate(nv_inference_request_success[10m])) / 1e6 > 1",
        "10m",
        "ticket",
        "Requests to {{ $labels.model }} queue in Triton",
        "On average {{ $value | humanizeDuration }} before they are computed.",
    ),
    Alert(
        "BonafideFileDescriptors",
        f"process_open_fds{{{SERVICES}}} / process_max_fds{{{SERVICES}}} > 0.8",
        "10m",
        "ticket",
        "A {{ $labels.component }} runs out of file descriptors",
        "{{ $labels.instance }} holds {{ $value | humanizePercentage }} of those it may.",
    ),
)

BRANCHES = (
    Alert(
        "BonafideBranchMissing",
        "sum by (namespace, branch)"
        ' (rate(bonafide_branch_outcomes_total{outcome=~"failed|timed_out|not_deployed"}[10m]))'
        " / sum by (namespace, branch)"
        ' (rate(bonafide_branch_outcomes_total{outcome=~"scored|failed|timed_out|not_deployed"}[10m])) > 0.05',
        "10m",
        "page",
        "Verdicts are formed without {{ $labels.branch }}",
        "{{ $value | humanizePercentage }} of the clips it applies to went without it.",
    ),
    Alert(
        "BonafideModelFailing",
        'sum by (namespace, model) (rate(bonafide_model_calls_total{code!~"OK|CANCELLED"}[10m]))'
        " / sum by (namespace, model) (rate(bonafide_model_calls_total[10m])) > 0.05",
        "5m",
        "ticket",
        "Calls to {{ $labels.model }} fail",
        "{{ $value | humanizePercentage }} of them.",
    ),
    Alert(
        "BonafideTritonFailing",
        "sum by (namespace, model, reason) (rate(nv_inference_request_failure[10m])) > 0.1",
        "5m",
        "ticket",
        "Triton counts failures of {{ $labels.model }}: {{ $labels.reason }}",
        "{{ $value | humanize }} a second.",
    ),
    Alert(
        "BonafideAbstainRateJump",
        "bonafide:abstain:ratio1h - bonafide:abstain:ratio7d > 0.1"
        " and bonafide:abstain:ratio1h - bonafide:abstain:ratio7d"
        " > 3 * sqrt(bonafide:abstain:ratio7d * (1 - bonafide:abstain:ratio7d) / bonafide:verdicts:count1h)"
        " and bonafide:verdicts:count1h > 30",
        "15m",
        "ticket",
        "The policy {{ $labels.policy }} abstains more than it did",
        "{{ $value | humanizePercentage }} more of the last hour's verdicts are INCONCLUSIVE than of the last week's.",
    ),
    Alert(
        "BonafideScoreDrift",
        f"bonafide:branch_score_drift:ks6h > {LEAST_DRIFT:g}"
        " and bonafide:branch_score_drift:ks6h > bonafide:branch_score_drift:critical6h",
        "30m",
        "ticket",
        "The scores of {{ $labels.branch }} have moved",
        "Kolmogorov-Smirnov distance {{ $value | humanize }} between the last six hours and the week before,"
        " more than chance explains.",
    ),
)

MODELS = (
    Alert(
        "BonafideModelVersionSkew",
        "count by (namespace, component, model, sha256) (bonafide_model_info)"
        " < on (namespace, component, model) group_left ()"
        " count by (namespace, component, model)"
        " (count by (namespace, component, model, instance) (bonafide_model_info))",
        "30m",
        "ticket",
        "Replicas of {{ $labels.component }} serve different versions of {{ $labels.model }}",
        "Only {{ $value }} of them serve {{ $labels.sha256 }}: the same clip may get different verdicts.",
    ),
    Alert(
        "BonafideRollback",
        "sum by (namespace, model, candidate, reason) (increase(bonafide_rollbacks_total[15m])) > 0"
        " or sum by (namespace, model, candidate, reason)"
        " (bonafide_rollbacks_total unless bonafide_rollbacks_total offset 15m) > 0",
        "0m",
        "ticket",
        "The candidate {{ $labels.candidate }} of {{ $labels.model }} was rolled back: {{ $labels.reason }}",
        "Traffic is back on the version before; nothing is to be saved, something is to be understood.",
    ),
    Alert(
        "BonafideCandidateDisagrees",
        "1 - sum by (namespace, model, candidate)"
        f' (rate(bonafide_rollout_disagreement_bucket{{le="{DISAGREEMENT}"}}[1h]))'
        " / sum by (namespace, model, candidate) (rate(bonafide_rollout_disagreement_count[1h])) > 0.1"
        " and sum by (namespace, model, candidate) (increase(bonafide_rollout_disagreement_count[1h])) > 30",
        "10m",
        "ticket",
        "The candidate {{ $labels.candidate }} disagrees with {{ $labels.model }}",
        f"{{{{ $value | humanizePercentage }}}} of its scores differ by more than {DISAGREEMENT}.",
    ),
    Alert(
        "BonafideCandidateFailing",
        "sum by (namespace, model, candidate) (rate(bonafide_rollout_errors_total[15m]))"
        " / sum by (namespace, model, candidate) (rate(bonafide_rollout_comparisons_total[15m])) > 0.01",
        "10m",
        "ticket",
        "The candidate {{ $labels.candidate }} of {{ $labels.model }} fails",
        "{{ $value | humanizePercentage }} of its calls.",
    ),
)
