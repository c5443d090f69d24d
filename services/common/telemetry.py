"""Every metric of every service: its name, its labels, what it means. The only place where they are declared.

A service makes one Telemetry in its composition root and hands it to those that measure. Labels take values
from small closed sets, never what a caller wrote. Observations made within a trace that is kept carry its id
as an exemplar. Names follow https://prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import prometheus_client as prometheus

from bonafide import __version__
from services.common.tracing import exemplar, span

SERVICES = frozenset({"gateway", "visual", "audio", "fusion"})
GATEWAY = frozenset({"gateway"})
MODEL_SERVICES = SERVICES - GATEWAY

LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
"""Upper bounds of latencies: a call to a model takes milliseconds, a long clip a minute."""
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
DIFFERENCES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)

CUSTOM, OTHER, NONE = "custom", "other", "none"
"""Label values: a name that the operator gave, whatever is not named, and what there is nothing of."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its full name, what it means, its labels, and the services that export it."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    services: frozenset[str] = SERVICES


@dataclass(frozen=True, slots=True)
class Counter(Metric):
    """Only ever grows."""


@dataclass(frozen=True, slots=True)
class Gauge(Metric):
    """Is now so high."""


@dataclass(frozen=True, slots=True)
class Histogram(Metric):
    """How often values lay below each of ``buckets``."""

    buckets: tuple[float, ...] = LATENCY_SECONDS


REQUESTS = Counter("bonafide_requests_total", "Calls that ended, health checks left out.", ("method", "code"))
REQUEST_DURATION = Histogram("bonafide_request_duration_seconds", "From a call's start to its end.", ("method",))
REQUESTS_IN_FLIGHT = Gauge("bonafide_requests_in_flight", "Calls under way.")
REQUESTS_REFUSED = Counter(
    "bonafide_requests_refused_total",
    "Calls, and items of batches, that ended with an error of ours, by its reason.",
    ("reason",),
)
READY = Gauge("bonafide_ready", "1 while the service wants calls, else 0.")
BUILD_INFO = Gauge("bonafide_build_info", "Always 1; says what runs.", ("version", "service"))
STAGE_DURATION = Histogram(
    "bonafide_stage_duration_seconds", "How long a stage of one request took, failed or not.", ("stage",)
)

ANALYSIS_DURATION = Histogram(
    "bonafide_analysis_duration_seconds",
    "From the last byte of a clip to its verdict, where it was worked out.",
    ("priority",),
    GATEWAY,
)
BRANCH_DURATION = Histogram(
    "bonafide_branch_duration_seconds", "How long a branch took that was asked.", ("branch",), GATEWAY
)
BRANCH_OUTCOMES = Counter(
    "bonafide_branch_outcomes_total", "Lines of the ledger.", ("branch", "outcome", "reason"), GATEWAY
)
BRANCH_SCORE = Histogram(
    "bonafide_branch_score",
    "P(deepfake) that a branch gave, by class of what it judged.",
    ("branch", "codec", "resolution"),
    GATEWAY,
    SCORES,
)
VERDICTS = Counter("bonafide_verdicts_total", "Verdicts that were worked out.", ("policy", "verdict"), GATEWAY)
FRAMES_DECODED = Counter("bonafide_frames_decoded_total", "Pictures taken from clips to be judged.", (), GATEWAY)
MEDIA_SECONDS = Counter("bonafide_media_seconds_total", "Playing time of clips that were decoded.", (), GATEWAY)
BYTES_RECEIVED = Counter("bonafide_bytes_received_total", "Bytes of clips that came in to be judged.", (), GATEWAY)
QUEUE_DEPTH = Gauge(
    "bonafide_admission_queue_depth", "Requests that have uploaded and wait for a turn.", ("priority",), GATEWAY
)
QUEUE_OLDEST = Gauge(
    "bonafide_admission_queue_oldest_seconds", "How long the one who waits longest has waited.", ("priority",), GATEWAY
)
ANSWERS_REUSED = Counter(
    "bonafide_answers_reused_total",
    "Answers given again: kept ones, and those of a flight shared.",
    ("source",),
    GATEWAY,
)
ANSWERS_COMPUTED = Counter("bonafide_answers_computed_total", "Answers that were worked out.", (), GATEWAY)
BREAKER_OPEN = Gauge("bonafide_breaker_open", "1 unless calls to a service go through freely.", ("peer",), GATEWAY)

MODEL_CALLS = Counter(
    "bonafide_model_calls_total",
    "Calls to a model, retries counted as one; those of a trial under NAME/VERSION.",
    ("model", "code"),
    MODEL_SERVICES,
)
MODEL_CALL_DURATION = Histogram(
    "bonafide_model_call_duration_seconds",
    "How long a call to a model took, waiting and retries included.",
    ("model",),
    MODEL_SERVICES,
)
MODEL_REJECTIONS = Counter(
    "bonafide_model_rejections_total",
    "Attempts that the inference server did not take or finish, each retry by itself.",
    ("model", "reason"),
    MODEL_SERVICES,
)
MODEL_INFO = Gauge(
    "bonafide_model_info", "Always 1; the models at work.", ("model", "version", "sha256"), MODEL_SERVICES
)

_CANDIDATE = ("model", "candidate")
ROLLOUT_COMPARISONS = Counter(
    "bonafide_rollout_comparisons_total",
    "Inputs that a candidate judged beside the model in force.",
    (*_CANDIDATE, "mode"),
    MODEL_SERVICES,
)
ROLLOUT_DISAGREEMENT = Histogram(
    "bonafide_rollout_disagreement",
    "Absolute difference of probability between a candidate and the model in force.",
    _CANDIDATE,
    MODEL_SERVICES,
    DIFFERENCES,
)
ROLLOUT_ERRORS = Counter(
    "bonafide_rollout_errors_total", "Calls to a candidate that failed.", _CANDIDATE, MODEL_SERVICES
)
ROLLOUT_SHARE = Gauge(
    "bonafide_rollout_share", "Share of traffic that a candidate answers, 0 in its shadow.", _CANDIDATE, MODEL_SERVICES
)
ROLLBACKS = Counter(
    "bonafide_rollbacks_total", "Candidates that were taken back.", (*_CANDIDATE, "reason"), MODEL_SERVICES
)

DECLARED: tuple[Metric, ...] = (
    REQUESTS, REQUEST_DURATION, REQUESTS_IN_FLIGHT, REQUESTS_REFUSED, READY, BUILD_INFO, STAGE_DURATION,
    ANALYSIS_DURATION, BRANCH_DURATION, BRANCH_OUTCOMES, BRANCH_SCORE, VERDICTS, FRAMES_DECODED, MEDIA_SECONDS,
    BYTES_RECEIVED, QUEUE_DEPTH, QUEUE_OLDEST, ANSWERS_REUSED, ANSWERS_COMPUTED, BREAKER_OPEN,
    MODEL_CALLS, MODEL_CALL_DURATION, MODEL_REJECTIONS, MODEL_INFO,
    ROLLOUT_COMPARISONS, ROLLOUT_DISAGREEMENT, ROLLOUT_ERRORS, ROLLOUT_SHARE, ROLLBACKS,
)  # fmt: skip
"""All of them; beside them a service exports process_* and python_gc_* of prometheus-client."""


class Telemetry:
    """The metrics of one process. Safe between threads, but for ``before_scrape`` and ``refresh``.

    Args:
        service: which of SERVICES; it has the metrics that this one exports, and no other.
    """

    def __init__(self, service: str) -> None:
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # would double the series for nobody
        self.service = service
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        prometheus.GCCollector(registry=self.registry)
        mine = [metric for metric in DECLARED if service in metric.services]
        self._counters = {metric.name: self._counter(metric) for metric in mine if isinstance(metric, Counter)}
        self._gauges = {metric.name: self._gauge(metric) for metric in mine if isinstance(metric, Gauge)}
        self._histograms = {metric.name: self._histogram(metric) for metric in mine if isinstance(metric, Histogram)}
        self._shown: dict[tuple[str, str], frozenset[tuple[str, ...]]] = {}
        self._readers: list[Callable[[], None]] = []
        self.show(BUILD_INFO, 1, version=__version__, service=service)

    def count(self, metric: Counter, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        counter = self._counters[metric.name]
        (counter.labels(**labels) if labels else counter).inc(amount, exemplar())

    def observe(self, metric: Histogram, value: float, **labels: str) -> None:
        """Note one value in a histogram."""
        histogram = self._histograms[metric.name]
        (histogram.labels(**labels) if labels else histogram).observe(value, exemplar())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of one request, which is a span of its trace too: the block, however it ends."""
        began = time.perf_counter()
        with span(name):
            try:
                yield
            finally:
                self.observe(STAGE_DURATION, time.perf_counter() - began, stage=name)

    def show(self, metric: Gauge, value: float, **labels: str) -> None:
        """Set a gauge."""
        gauge = self._gauges[metric.name]
        (gauge.labels(**labels) if labels else gauge).set(value)

    def show_only(self, metric: Gauge, values: Mapping[tuple[str, ...], float], group: str = "") -> None:
        """Set a gauge for these values of its labels, and no more for others that were shown for this group."""
        gauge = self._gauges[metric.name]
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        for labels in self._shown.get((metric.name, group), frozenset()) - values.keys():
            gauge.remove(*labels)
        self._shown[metric.name, group] = frozenset(values)

    def expect(self, metric: Counter, labels: Iterable[Mapping[str, str]]) -> None:
        """Begin counters at 0, so that their first increase is seen as one."""
        for each in labels:
            self._counters[metric.name].labels(**each)

    def before_scrape(self, read: Callable[[], None]) -> None:
        """Have something done before each scrape, on the event loop: set gauges of what is under way."""
        self._readers.append(read)

    def refresh(self) -> None:
        """Do what is to be done before a scrape."""
        for read in self._readers:
            read()

    def _counter(self, metric: Counter) -> prometheus.Counter:
        return prometheus.Counter(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _gauge(self, metric: Gauge) -> prometheus.Gauge:
        return prometheus.Gauge(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _histogram(self, metric: Histogram) -> prometheus.Histogram:
        return prometheus.Histogram(
            metric.name, metric.meaning, metric.labels, registry=self.registry, buckets=metric.buckets
        )
