"""Models and drift: which models answer, whether their scores move, and how candidates do."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.observe.alerts import LEAST_DRIFT
from deploy.observe.expressions import HERE, quantile, rate, total
from deploy.observe.objectives import BRANCH_SECONDS
from deploy.observe.panels import COUNT, PER_SECOND, SHARE, Panel, Query, board, graph, heat, listing, row


def models() -> Dashboard:
    """Which models answer, whether their scores move, and how candidates do."""
    made = board(
        "bonafide-models",
        "models and drift",
        "What is served, whether what it says still means what it meant, and candidates.",
    )
    row(made, "Drift", _drift())
    row(made, "Scores, P(deepfake)", _scores())
    row(made, "Models", _models())
    row(made, "Candidates", _candidates())
    return made


def _drift() -> list[Panel]:
    return [
        graph(
            "Distance of scores from last week's",
            COUNT,
            [
                Query(f"bonafide:branch_score_drift:ks6h{{{HERE}}}", "{{branch}}"),
                Query(f"bonafide:branch_score_drift:critical6h{{{HERE}}}", "{{branch}}: what chance explains"),
            ],
            "Kolmogorov-Smirnov distance of the last six hours' scores from those of the week before.",
            limit=LEAST_DRIFT,
            pages=["BonafideScoreDrift"],
        ),
        graph(
            "Verdicts withheld",
            SHARE,
            [
                Query(f"bonafide:abstain:ratio1h{{{HERE}}}", "{{policy}}, last hour"),
                Query(f"bonafide:abstain:ratio7d{{{HERE}}}", "{{policy}}, last week"),
            ],
            "Share of INCONCLUSIVE.",
            pages=["BonafideAbstainRateJump"],
        ),
        graph(
            "What comes in",
            SHARE,
            [
                Query(
                    f"{rate('bonafide_branch_score_count', 'codec, resolution')}"
                    f" / scalar({total('bonafide_branch_score_count')})",
                    "{{codec}} {{resolution}}",
                )
            ],
            "Scores by class of codec and resolution: another mix moves scores without any fault.",
            stacked=True,
            pages=["BonafideScoreDrift"],
        ),
    ]


def _scores() -> list[Panel]:
    scores = [
        heat(
            branch,
            SHARE,
            rate("bonafide_branch_score_bucket", "le", f'branch="{branch}",{HERE}'),
            f"Scores that {branch} gave.",
            pages=["BonafideScoreDrift"],
        )
        for branch in BRANCH_SECONDS
    ]
    return [
        *scores,
        graph(
            "Median score by codec and resolution",
            SHARE,
            [
                Query(
                    quantile(0.5, "bonafide_branch_score", "branch, codec, resolution"),
                    "{{branch}} {{codec}} {{resolution}}",
                )
            ],
            "Where one class alone moves, look at its encoder.",
            pages=["BonafideScoreDrift"],
        ),
    ]


def _models() -> list[Panel]:
    failed = rate("bonafide_model_calls_total", "model", f'code!~"OK|CANCELLED",{HERE}')
    return [
        listing(
            "What is served",
            Query(f"count by (namespace, component, model, version, sha256) (bonafide_model_info{{{HERE}}})", ""),
            "Two hashes for one model are a roll-out, a candidate, or a fault.",
            pages=["BonafideModelVersionSkew"],
            width=12,
        ),
        graph(
            "Calls that fail",
            SHARE,
            [Query(f"{failed} / {rate('bonafide_model_calls_total', 'model')}", "{{model}}")],
            "Share of calls to a model that fail after all retries.",
            limit=0.05,
            pages=["BonafideModelFailing"],
            width=6,
        ),
        graph(
            "Failures that Triton counts",
            PER_SECOND,
            [Query(rate("nv_inference_request_failure", "model, reason"), "{{model}} {{reason}}")],
            "Cancelled requests are among them.",
            pages=["BonafideTritonFailing"],
            width=6,
        ),
    ]


def _candidates() -> list[Panel]:
    return [
        graph(
            "Share of traffic",
            SHARE,
            [Query(f"max by (model, candidate) (bonafide_rollout_share{{{HERE}}})", "{{model}} {{candidate}}")],
            "What a canary answers; 0 in shadow.",
            width=6,
        ),
        heat(
            "Disagreement",
            SHARE,
            rate("bonafide_rollout_disagreement_bucket", "le"),
            "Difference of probability from the model in force.",
            pages=["BonafideCandidateDisagrees"],
            width=6,
        ),
        graph(
            "Comparisons and errors",
            PER_SECOND,
            [
                Query(
                    rate("bonafide_rollout_comparisons_total", "model, candidate, mode"),
                    "{{model}} {{candidate}} {{mode}}",
                ),
                Query(rate("bonafide_rollout_errors_total", "model, candidate"), "{{model}} {{candidate}} errors"),
            ],
            "Inputs that both judged, and calls that failed.",
            pages=["BonafideCandidateFailing"],
            width=6,
        ),
        graph(
            "Rollbacks",
            COUNT,
            [
                Query(
                    f"sum by (model, candidate, reason) (bonafide_rollbacks_total{{{HERE}}})",
                    "{{model}} {{candidate}} {{reason}}",
                )
            ],
            "Candidates that were taken back.",
            pages=["BonafideRollback"],
            width=6,
        ),
    ]
