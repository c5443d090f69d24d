"""Capacity and cost: how much is done with how much, and at what price."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, TextBoxVariable
from grafana_foundation_sdk.models.dashboard import VariableOption

from benchmarks.capacity.assumptions import Assumptions
from deploy.observe.expressions import HERE, RATE, SERVICES, rate
from deploy.observe.panels import (
    BYTES,
    COUNT,
    DOLLARS,
    PER_SECOND,
    SECONDS,
    SHARE,
    Panel,
    Query,
    board,
    graph,
    number,
    row,
)

_OURS = f"{SERVICES},{HERE}"
_CLIPS = f"sum(rate(bonafide_answers_computed_total{{{HERE}}}[{RATE}]))"
_CORES = f"sum(rate(process_cpu_seconds_total{{{_OURS}}}[{RATE}]))"
_GPUS = f"(count(nv_gpu_utilization{{{HERE}}}) or vector(0))"


def capacity() -> Dashboard:
    """How much is done with how much, and what it costs."""
    prices = Assumptions()
    made = board(
        "bonafide-capacity",
        "capacity and cost",
        "What the fleet does, with how much, at what price. Processors of Triton's pods are not among ours.",
        [
            _price("core_hour", "USD a core hour", prices.core_hour),
            _price("gpu_hour", "USD a GPU hour", prices.gpu_hour),
        ],
    )
    row(made, "Throughput and cost", _throughput())
    row(made, "Services", _services())
    row(made, "Processes", _processes())
    row(made, "Triton", _triton())
    row(made, "GPUs", _gpus())
    return made


def _price(name: str, label: str, dollars: float) -> TextBoxVariable:
    text = f"{dollars:g}"
    variable = TextBoxVariable(name).label(label).default_value(text)
    return variable.current(VariableOption(selected=True, text=text, value=text))


def _throughput() -> list[Panel]:
    return [
        number("Clips a minute", COUNT, Query(f"60 * {_CLIPS}", "clips"), "Analyses that were worked out."),
        number(
            "Playing time",
            COUNT,
            Query(f"sum(rate(bonafide_media_seconds_total{{{HERE}}}[{RATE}]))", "seconds a second"),
            "Seconds of clips analysed in a second.",
        ),
        number(
            "Pictures",
            PER_SECOND,
            Query(f"sum(rate(bonafide_frames_decoded_total{{{HERE}}}[{RATE}]))", "pictures"),
            "Pictures taken from clips to be judged.",
        ),
        number(
            "Processor time a clip",
            SECONDS,
            Query(f"{_CORES} / ({_CLIPS} > 0)", "seconds"),
            "Of our services; Triton not included.",
        ),
        number(
            "Cost of a thousand clips",
            DOLLARS,
            Query(f"({_CORES} * $core_hour + {_GPUS} * $gpu_hour) / 3600 / ({_CLIPS} > 0) * 1000", "USD"),
            "Processor time used and GPUs held, at the prices above; see docs/capacity.md for what idles.",
        ),
        number(
            "Bytes received",
            "Bps",
            Query(f"sum(rate(bonafide_bytes_received_total{{{HERE}}}[{RATE}]))", "bytes"),
            "Of clips.",
        ),
    ]


def _services() -> list[Panel]:
    return [
        graph(
            "Cores in use",
            COUNT,
            [Query(rate("process_cpu_seconds_total", "component", f"{_OURS}"), "{{component}}")],
            "Processor seconds a second.",
            stacked=True,
            pages=["BonafideBranchLatencyBudgetBurn"],
        ),
        graph(
            "Replicas",
            COUNT,
            [Query(f"count by (component) (bonafide_build_info{{{HERE}}})", "{{component}}")],
            "Those that are scraped.",
        ),
        graph(
            "Calls under way by replica",
            COUNT,
            [Query(f"avg by (component) (bonafide_requests_in_flight{{{HERE}}})", "{{component}}")],
            "What the autoscaler holds near its target.",
        ),
    ]


def _processes() -> list[Panel]:
    return [
        graph(
            "Resident memory, highest",
            BYTES,
            [Query(f"max by (component) (process_resident_memory_bytes{{{_OURS}}})", "{{component}}")],
            "Of one replica.",
            pages=["BonafideNoRoom", "BonafideRestarting"],
        ),
        graph(
            "File descriptors",
            SHARE,
            [
                Query(
                    f"max by (component) (process_open_fds{{{_OURS}}} / process_max_fds{{{_OURS}}})",
                    "{{component}}",
                )
            ],
            "Share of those a process may hold.",
            limit=0.8,
            pages=["BonafideFileDescriptors"],
        ),
        graph(
            "Garbage collection",
            PER_SECOND,
            [Query(rate("python_gc_collections_total", "component", f'generation="2",{HERE}'), "{{component}}")],
            "Full collections; many are many live objects.",
        ),
    ]


def _triton() -> list[Panel]:
    return [
        graph(
            "Inferences",
            PER_SECOND,
            [Query(rate("nv_inference_count", "model"), "{{model}}")],
            "Items, not requests.",
            width=6,
        ),
        graph(
            "Items in a batch",
            COUNT,
            [
                Query(
                    f"{rate('nv_inference_count', 'model')} / {rate('nv_inference_exec_count', 'model')}",
                    "{{model}}",
                )
            ],
            "How many items one execution takes; near 1 a GPU is used badly.",
            pages=["BonafideTritonQueueing"],
            width=6,
        ),
        graph(
            "Pending requests",
            COUNT,
            [Query(f"sum by (model) (nv_inference_pending_request_count{{{HERE}}})", "{{model}}")],
            "What the autoscaler of a pool follows.",
            pages=["BonafideTritonQueueing"],
            width=6,
        ),
        graph(
            "Rejections",
            PER_SECOND,
            [Query(rate("bonafide_model_rejections_total", "model, reason"), "{{model}} {{reason}}")],
            "Counted by clients: Triton counts a full queue nowhere.",
            pages=["BonafideTritonRejecting"],
            width=6,
        ),
    ]


def _gpus() -> list[Panel]:
    return [
        graph(
            "GPU in use",
            SHARE,
            [Query(f"nv_gpu_utilization{{{HERE}}}", "{{instance}} {{gpu_uuid}}")],
            "Only where Triton has GPUs.",
            width=12,
        ),
        graph(
            "GPU memory",
            SHARE,
            [
                Query(
                    f"nv_gpu_memory_used_bytes{{{HERE}}} / nv_gpu_memory_total_bytes{{{HERE}}}",
                    "{{instance}} {{gpu_uuid}}",
                )
            ],
            "Only where Triton has GPUs.",
            limit=0.9,
            width=12,
        ),
    ]
