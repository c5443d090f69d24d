"""The latency of branches: which one is slow, in which stage, at which model."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.observe.expressions import HERE, mean, quantile, rate
from deploy.observe.objectives import BRANCH_SECONDS
from deploy.observe.panels import PER_SECOND, SECONDS, Panel, Query, board, graph, heat, row


def latency() -> Dashboard:
    """Which branch is slow, in which stage, at which model."""
    made = board(
        "bonafide-latency", "latency of branches", "Where the time of an analysis goes, from branch to stage to model."
    )
    for branch, limit in BRANCH_SECONDS.items():
        row(made, f"Branch {branch}: within {limit:g} s", _branch(branch, limit))
    row(made, "Stages and calls", _stages())
    row(made, "Triton", _triton())
    return made


def _stages() -> list[Panel]:
    return [
        graph(
            "Stages of a request, p95",
            SECONDS,
            [
                Query(
                    quantile(0.95, "bonafide_stage_duration_seconds", "component, stage"),
                    "{{component}} {{stage}}",
                    exemplar=True,
                )
            ],
            "Each stage by itself. Points are traces.",
            pages=["BonafideBranchLatencyBudgetBurn"],
        ),
        graph(
            "Calls between services, p95",
            SECONDS,
            [
                Query(
                    quantile(0.95, "bonafide_request_duration_seconds", "component, method"),
                    "{{component}} {{method}}",
                    exemplar=True,
                )
            ],
            "As the called service sees them. Points are traces.",
        ),
        graph(
            "Calls to models, p95",
            SECONDS,
            [Query(quantile(0.95, "bonafide_model_call_duration_seconds", "model"), "{{model}}", exemplar=True)],
            "As services see them, waiting and retries included. Points are traces.",
            pages=["BonafideTritonQueueing"],
        ),
    ]


def _triton() -> list[Panel]:
    return [
        graph(
            "Waiting in Triton",
            SECONDS,
            [Query(mean("nv_inference_queue_duration_us", "nv_inference_request_success", "model"), "{{model}}")],
            "Mean time in a model's queue.",
            limit=1,
            pages=["BonafideTritonQueueing"],
        ),
        graph(
            "Computing",
            SECONDS,
            [
                Query(
                    mean("nv_inference_compute_infer_duration_us", "nv_inference_request_success", "model"),
                    "{{model}}",
                )
            ],
            "Mean time in the network itself.",
        ),
        graph(
            "Moving tensors",
            SECONDS,
            [
                Query(
                    mean("nv_inference_compute_input_duration_us", "nv_inference_request_success", "model"),
                    "{{model}} in",
                ),
                Query(
                    mean("nv_inference_compute_output_duration_us", "nv_inference_request_success", "model"),
                    "{{model}} out",
                ),
            ],
            "Mean time to bring tensors in and out.",
        ),
    ]


def _branch(branch: str, limit: float) -> list[Panel]:
    here = f'branch="{branch}",{HERE}'
    return [
        graph(
            "Quantiles",
            SECONDS,
            [
                Query(quantile(q, "bonafide_branch_duration_seconds", where=here), f"p{q * 100:g}", exemplar=True)
                for q in (0.5, 0.95, 0.99)
            ],
            f"How long {branch} took where it was asked. Points are traces.",
            limit=limit,
            pages=["BonafideBranchLatencyBudgetBurn"],
        ),
        heat(
            "Distribution",
            SECONDS,
            rate("bonafide_branch_duration_seconds_bucket", "le", here),
            f"How long {branch} took. Points are traces.",
        ),
        graph(
            "Outcomes",
            PER_SECOND,
            [Query(rate("bonafide_branch_outcomes_total", "outcome, reason", here), "{{outcome}} {{reason}}")],
            "Lines of the ledger.",
            stacked=True,
            pages=["BonafideBranchMissing"],
        ),
    ]
