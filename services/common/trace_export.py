"""The spans of one process on their way out, by OTLP over gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, set_span_in_context
from opentelemetry.util.types import Attributes

from bonafide import __version__
from services.common.refusal import ConfigurationError
from services.common.settings import ServiceSettings
from services.common.trace_outcomes import OutcomeRules, OutcomeSampling

EXPORT_SECONDS = 3.0
"""Longest time for one export, tries included."""
FLUSH_SECONDS = 2.0
"""Longest time to send what waits at the end, no longer than a second signal leaves to a process that stops."""
_QUEUE_SPANS, _BATCH_SPANS, _BATCH_MILLISECONDS = 8192, 512, 1000
_LONGEST_ATTRIBUTE = 256


class Tracing:
    """Makes the spans of one process and sends away those that are worth it.

    Spans are sent from a thread of their own, from a queue that has an end: a receiver that is slow or gone costs
    spans and never a request.

    Args:
        service: name of the service.
        rules: which traces are kept.
        exporter: sends them.
    """

    def __init__(self, service: str, rules: OutcomeRules, exporter: SpanExporter) -> None:
        self._exporter = exporter
        sink = BatchSpanProcessor(
            self._exporter,
            max_queue_size=_QUEUE_SPANS,
            max_export_batch_size=_BATCH_SPANS,
            schedule_delay_millis=_BATCH_MILLISECONDS,
        )
        self._sampling = OutcomeSampling(rules, sink)
        about = {SERVICE_NAME: service, SERVICE_NAMESPACE: "bonafide", SERVICE_VERSION: __version__}
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # whether a span is sent is decided when it has ended
            resource=Resource.create(about),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=_LONGEST_ATTRIBUTE),
        )
        self._provider.add_span_processor(self._sampling)
        self._tracer = self._provider.get_tracer("bonafide", __version__)

    def start(self, name: str, parent: Span, kind: SpanKind, attributes: Attributes) -> Span:
        """Begin a span below another; whoever begins it ends it."""
        return self._tracer.start_span(name, set_span_in_context(parent, Context()), kind, attributes)

    def kept(self, span: Span) -> bool:
        """Whether the trace of an open span will be sent, as far as can be told by now."""
        return self._sampling.kept(span.get_span_context().trace_id)

    async def close(self) -> None:
        """Send what is waiting, for FLUSH_SECONDS at most."""
        ending = asyncio.ensure_future(asyncio.to_thread(self._provider.shutdown))
        await asyncio.wait((ending,), timeout=FLUSH_SECONDS)
        if not ending.done():
            await asyncio.to_thread(self._exporter.shutdown)  # ends the tries of an export that is under way
            await ending


def open_tracing(service: str, settings: ServiceSettings) -> Tracing | None:
    """What makes and sends the spans of a service; None when they go nowhere.

    Raises:
        ConfigurationError: the receiver's authorities cannot be read.
    """
    if not settings.otlp_endpoint:
        return None
    rules = OutcomeRules(settings.trace_sample_ratio, settings.trace_slow_seconds)
    try:
        return Tracing(service, rules, _exporter(settings.otlp_endpoint, settings.otlp_authorities))
    except OSError as error:
        raise ConfigurationError(f"otlp_authorities cannot be read: {error.strerror}") from error


def _exporter(endpoint: str, authorities: Path | None) -> OTLPSpanExporter:
    """Sends to an http or https URL; connects when there is something to send."""
    if endpoint.startswith("http://"):
        return OTLPSpanExporter(endpoint, insecure=True, timeout=EXPORT_SECONDS)
    roots = authorities.read_bytes() if authorities is not None else None  # None: the system's
    credentials = grpc.ssl_channel_credentials(roots)
    return OTLPSpanExporter(endpoint, credentials=credentials, timeout=EXPORT_SECONDS)
