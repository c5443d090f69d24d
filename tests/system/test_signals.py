"""Service by signal: what each process exports, what asks for it, and one trace from the caller to Triton and back."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from benchmarks.reliability.samples import speech_like
from bonafide.analysis import Analysis
from bonafide.client import BadInputError, Client
from deploy.local.portrait import render_portrait
from deploy.local.stack import Stack
from deploy.observe.clips import FREE_BOX, Kind
from deploy.observe.prometheus import Prometheus
from deploy.observe.receiver import OtlpReceiver, Span, edges
from deploy.observe.tools import find
from services.common import telemetry
from services.common.evidence import Branch, Outcome
from services.common.settings import EngineChoice
from tests import media_factory as make
from tests.observe.expressions import everything_asked, grouping_labels, selectors
from tests.system.conftest import analyze

WHEN_SOMETHING_IS_WRONG = {
    telemetry.MODEL_REJECTIONS,
    telemetry.ROLLOUT_COMPARISONS,
    telemetry.ROLLOUT_DISAGREEMENT,
    telemetry.ROLLOUT_ERRORS,
    telemetry.ROLLOUT_SHARE,
    telemetry.ROLLBACKS,
}
"""Declared by every service that may have them; without series until a model rejects or a candidate runs."""

WITH_A_GPU = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
"""Triton's own names, exported only where it has GPUs."""

TARGET_LABELS = {"component", "instance", "namespace"}
OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


@dataclass(frozen=True)
class Exported:
    """The families of one scrape, by name."""

    families: Mapping[str, Metric]

    def labels(self, family: str) -> set[frozenset[str]]:
        """The sets of labels with which a family's samples come, but for those of a histogram's buckets."""
        return {frozenset(sample.labels) - {"le"} for sample in self.families[family].samples}


@pytest.fixture(scope="module")
def talking_face() -> bytes:
    """Three seconds of a face, with sound that passes for speech."""
    frames = list(render_portrait(seconds=3, fps=25, blink_times=(1.0,)))
    height, width = frames[0].shape[:2]
    sound = speech_like(3.0, seed=5).repeat(make.SOUND_RATE // 16_000)
    clip = make.Clip(
        frames=len(frames), width=width, height=height, sound=sound, picture=lambda index, *_: frames[index]
    )
    return clip.bytes()


@pytest.fixture(scope="module")
def answers(client: Client, talking_face: bytes) -> list[Analysis]:
    """What was sent before anything is looked at: a clip, the same again, a still, a clip without a face, no media."""
    with pytest.raises(BadInputError):
        analyze(client, make.text_file())
    clips = [talking_face, talking_face, make.still_picture("PNG", pixels=make.portrait()), make.Clip().bytes()]
    return [analyze(client, clip) for clip in clips]


def scrape(address: str) -> str:
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": OPEN_METRICS})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def exported(stack: Stack, answers: list[Analysis]) -> dict[str, Exported]:
    """What each of our services exports after that."""
    assert {report.outcome for report in answers[0].branches} == {Outcome.SCORED}
    found = {}
    for name in telemetry.SERVICES:
        families = text_string_to_metric_families(scrape(stack.metrics[name]))
        found[name] = Exported({family.name: family for family in families})
    return found


@pytest.fixture(scope="module")
def of_triton(stack: Stack, answers: list[Analysis]) -> Mapping[str, set[str]]:
    """What Triton exports after that: the labels of each metric."""
    if stack.engine is not EngineChoice.TRITON:
        pytest.skip("Triton does not run here")
    assert answers
    text = scrape(stack.metrics["triton"])
    found: dict[str, set[str]] = {name: set() for name in re.findall(r"^# TYPE (\w+)", text, flags=re.MULTILINE)}
    for name, labels in re.findall(r"^(\w+)\{(.*?)\} ", text, flags=re.MULTILINE):
        found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


@pytest.mark.parametrize("service", sorted(telemetry.SERVICES))
def test_every_declared_metric_is_exported_with_its_labels(service: str, exported: dict[str, Exported]) -> None:
    mine = {metric for metric in telemetry.DECLARED if service in metric.services}
    families = exported[service].families
    assert {metric.name.removesuffix("_total") for metric in mine} == {
        name for name in families if name.startswith("bonafide_")
    }
    for metric in mine:
        found = exported[service].labels(metric.name.removesuffix("_total"))
        assert found <= {frozenset(metric.labels)}, metric.name
        if metric not in WHEN_SOMETHING_IS_WRONG and metric is not telemetry.REQUESTS_REFUSED:
            assert found, metric.name
    assert {"process_cpu_seconds", "process_start_time_seconds", "python_gc_collections"} <= families.keys()


def test_branches_stages_and_models_are_all_seen(exported: dict[str, Exported]) -> None:
    def values(family: str, label: str) -> set[str]:
        return {
            sample.labels[label]
            for each in exported.values()
            if family in each.families
            for sample in each.families[family].samples
        }

    assert values("bonafide_branch_duration_seconds", "branch") == set(Branch)
    assert values("bonafide_branch_score", "branch") == set(Branch)
    assert values("bonafide_stage_duration_seconds", "stage") >= {"receive", "queue", "decode", "analyze", "fuse"}
    assert values("bonafide_model_calls", "model") == values("bonafide_model_call_duration_seconds", "model")
    assert values("bonafide_model_calls", "model") <= values("bonafide_model_info", "model")
    assert values("bonafide_requests_refused", "reason") >= {"UNSUPPORTED_MEDIA"}
    assert values("bonafide_answers_reused", "source")


def test_everything_that_is_asked_of_triton_is_exported_by_it(of_triton: Mapping[str, set[str]]) -> None:
    asked = 0
    for place, expression in everything_asked():
        names = {part.metric for part in selectors(expression) if part.metric.startswith("nv_")} - WITH_A_GPU
        assert names <= of_triton.keys(), place
        if names and all(part.metric.startswith("nv_") for part in selectors(expression)):
            labels = set[str]().union(*(of_triton[name] for name in names)) | TARGET_LABELS
            assert grouping_labels(expression) <= labels, place
            asked += 1
    assert asked


@pytest.fixture(scope="module")
def prometheus(stack: Stack, answers: list[Analysis], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    tools = find()
    if tools is None:
        pytest.skip("no Prometheus: make prometheus fetches it where there is apt")
    assert answers
    with Prometheus(tools, stack.metrics, tmp_path_factory.mktemp("prometheus"), scrape_seconds=0.5) as running:
        running.await_scrapes(20.0)
        running.await_rules(20.0)
        yield running


def test_a_real_prometheus_takes_every_expression_and_evaluates_every_rule(prometheus: Prometheus) -> None:
    for _, expression in everything_asked():
        prometheus.query(expression)
    assert prometheus.broken_rules() == {}
    assert prometheus.query('bonafide:slo_budget:ratio{slo="availability"}')[0].value == pytest.approx(0.001)


def test_prometheus_holds_every_metric_that_is_asked_for(prometheus: Prometheus, stack: Stack) -> None:
    held = set(prometheus.names())
    absent = WITH_A_GPU | {name for metric in WHEN_SOMETHING_IS_WRONG for name in series_of(metric)}
    asked = {part.metric for _, expression in everything_asked() for part in selectors(expression)}
    if stack.engine is not EngineChoice.TRITON:
        asked = {name for name in asked if not name.startswith("nv_")}
    assert {name for name in asked - absent if not name.startswith("bonafide:")} <= held


def series_of(metric: telemetry.Metric) -> set[str]:
    if isinstance(metric, telemetry.Histogram):
        return {f"{metric.name}{end}" for end in ("_bucket", "_count", "_sum")}
    return {metric.name}


CALLER = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from bonafide.client import Client

provider = TracerProvider(resource=Resource.create({"service.name": "client"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(sys.argv[2], insecure=True)))
trace.set_tracer_provider(provider)
with Client(sys.argv[1]) as client:
    client.analyze(sys.argv[3], request_id="seen", timeout=60)
provider.shutdown()
"""


ANALYZE, FUSE = "bonafide.v1.AnalysisService/Analyze", "bonafide.v1.FusionService/Fuse"
FACES, SPEECH = "bonafide.v1.VisualService/AnalyzeFaces", "bonafide.v1.AudioService/AnalyzeSpeech"
EDGES = {
    ("client: bonafide.analyze", f"gateway: {ANALYZE}"),
    *((f"gateway: {ANALYZE}", f"gateway: {stage}") for stage in ("receive", "queue", "decode", "fuse")),
    (f"gateway: {ANALYZE}", f"gateway: {FACES}"),
    (f"gateway: {FACES}", f"visual: {FACES}"),
    *((f"visual: {FACES}", f"visual: {part}") for part in ("detect", "landmark", "branch patch", "branch frame")),
    (f"visual: {FACES}", "visual: branch temporal"),
    ("visual: detect", "visual: infer face_detector"),
    ("visual: landmark", "visual: infer face_landmarker"),
    ("visual: branch patch", "visual: infer patch_gate"),
    ("visual: branch frame", "visual: infer frame_classifier"),
    ("visual: branch temporal", "visual: infer temporal"),
    (f"gateway: {ANALYZE}", f"gateway: {SPEECH}"),
    (f"gateway: {SPEECH}", f"audio: {SPEECH}"),
    (f"audio: {SPEECH}", "audio: branch audio"),
    ("audio: score", "audio: infer spoof_classifier"),
    ("gateway: fuse", f"gateway: {FUSE}"),
    (f"gateway: {FUSE}", f"fusion: {FUSE}"),
    (f"fusion: {FUSE}", "fusion: branch sync"),
    ("fusion: branch sync", "fusion: infer sync"),
}
"""Parent and child, as ``service: name``."""

MODELS = {
    "visual": ("face_detector", "face_landmarker", "patch_gate", "frame_classifier", "temporal"),
    "audio": ("spoof_classifier",),
    "fusion": ("sync",),
}
OF_TRITON = {
    edge
    for service, models in MODELS.items()
    for model in models
    for edge in (
        (f"{service}: infer {model}", "triton: InferRequest"),
        ("triton: InferRequest", f"triton: {model}"),
        (f"triton: {model}", "triton: compute"),
    )
}


@pytest.fixture(scope="module")
def one_trace(stack: Stack, receiver: OtlpReceiver, talking_face: bytes, tmp_path_factory) -> list[Span]:
    """Every span of one analysis, whose caller has traces of its own."""
    clip = tmp_path_factory.mktemp("clip") / "clip.mp4"
    clip.write_bytes(Kind("clip", talking_face, FREE_BOX).copy())
    command = [sys.executable, "-c", CALLER, stack.gateway, receiver.endpoint, str(clip)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr

    expected = EDGES | (OF_TRITON if stack.engine is EngineChoice.TRITON else set())
    spans = receiver.wait_for(lambda spans: expected <= edges(asked_by_client(spans)), seconds=20)
    return asked_by_client(spans)


def asked_by_client(spans: list[Span]) -> list[Span]:
    traces = {span.trace_id for span in spans if span.service == "client"}
    return [span for span in spans if span.trace_id in traces]


def test_one_trace_goes_from_the_caller_to_triton_and_back(one_trace: list[Span]) -> None:
    assert len({span.trace_id for span in one_trace}) == 1
    known = {span.span_id for span in one_trace}
    assert [span.name for span in one_trace if span.parent_id not in known] == ["bonafide.analyze"]
    assert {span.service for span in one_trace} >= {"client", *telemetry.SERVICES}
    assert not any(span.error for span in one_trace)


def test_a_metric_leads_to_a_trace_and_a_trace_to_a_line_of_the_log(
    prometheus: Prometheus, receiver: OtlpReceiver, one_trace: list[Span], run_directory: Path
) -> None:
    found = prometheus.exemplars('bonafide_branch_duration_seconds_bucket{component="gateway"}', seconds=600)
    assert {each.labels["branch"] for each in found} == set(Branch)
    assert {each.trace_id for each in found} <= {span.trace_id for span in receiver.spans}
    lines = (run_directory / "logs" / "gateway.log").read_text().splitlines()
    assert any(one_trace[0].trace_id in line and "seen" in line for line in lines)
