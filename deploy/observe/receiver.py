"""A place that spans are sent to: OTLP over gRPC, as our services speak it, and over HTTP as JSON, as Triton does."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from deploy.local.stack import StackOptions
from deploy.topology import COMPONENTS

_IDS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True)
class Span:
    """One span as it arrived; ids are lower-case hex, ``parent_id`` is empty for a root, times are nanoseconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    error: bool
    attributes: Mapping[str, Any]
    events: Sequence[str]
    resource: Mapping[str, Any] = field(default_factory=dict)
    raw: trace_pb2.Span = field(default_factory=trace_pb2.Span, repr=False)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e9


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on two free ports of loopback and keeps every span; a context manager.

    ``refusing`` is a status code that exports get for as long as it is set. Leaving the context closes the
    ports and keeps the spans. With ``credentials`` the first of the ports speaks TLS.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.spans: list[Span] = []
        self.refusing: grpc.StatusCode | None = None
        self.refused = 0
        self._news = threading.Condition()
        self._grpc = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._grpc)  # type: ignore[no-untyped-call]
        here = "127.0.0.1:0"
        port = self._grpc.add_secure_port(here, credentials) if credentials else self._grpc.add_insecure_port(here)
        self._address = f"{'https' if credentials else 'http'}://127.0.0.1:{port}"
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._take_json))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        """For settings named ``otlp_endpoint``."""
        return self._address

    @property
    def http_url(self) -> str:
        """For Triton."""
        return f"http://127.0.0.1:{self._http.server_port}/v1/traces"

    def __enter__(self) -> Self:
        self._grpc.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._grpc.stop(0).wait(5)
        self._http.shutdown()
        self._thread.join(5)
        self._http.server_close()

    def wait_for(self, enough: Callable[[list[Span]], object], seconds: float = 10.0) -> list[Span]:
        """The spans, once there are enough of them."""
        with self._news:
            assert self._news.wait_for(lambda: enough(self.spans), seconds), [
                (span.service, span.name) for span in self.spans
            ]
            return list(self.spans)

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace, by when they began."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802 - the contract's name; untyped stubs
        """See OTLP: keep what has come in."""
        if self.refusing is not None:
            self.refused += 1
            context.abort(self.refusing, "not now")
        self._take(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def _take_json(self, body: bytes) -> None:
        """OTLP's JSON is protobuf's, but for ids, which are hex where protobuf expects base64."""
        plain = json.loads(body)
        ids = []
        for group in plain.get("resourceSpans", ()):
            for scope in group.get("scopeSpans", ()):
                for span in scope.get("spans", ()):
                    ids.append([span.pop(name, "") for name in _IDS])
                    span.pop("links", None)
        message = trace_service_pb2.ExportTraceServiceRequest()
        json_format.ParseDict(plain, message, ignore_unknown_fields=True)
        spans = (span for group in message.resource_spans for scope in group.scope_spans for span in scope.spans)
        for span, (trace_id, span_id, parent_id) in zip(spans, ids, strict=True):
            span.trace_id, span.span_id = bytes.fromhex(trace_id), bytes.fromhex(span_id)
            span.parent_span_id = bytes.fromhex(parent_id)
        self._take(message)

    def _take(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        with self._news:
            self.spans += _read(request)
            self._news.notify_all()


def traced(options: StackOptions, receiver: OtlpReceiver) -> StackOptions:
    """A stack all of whose traces are kept and go to a receiver."""
    always = {f"{each.prefix}TRACE_SAMPLE_RATIO": "1" for each in COMPONENTS}
    environment = {**options.environment, **always}
    return replace(options, environment=environment, otlp_endpoint=receiver.endpoint, otlp_http_url=receiver.http_url)


def edges(spans: Iterable[Span]) -> set[tuple[str, str]]:
    """Parent → child of every span whose parent is among them, each as ``service: name``."""
    spans = list(spans)
    titles = {span.span_id: f"{span.service}: {span.name}" for span in spans}
    return {(titles[span.parent_id], titles[span.span_id]) for span in spans if span.parent_id in titles}


def _read(request: trace_service_pb2.ExportTraceServiceRequest) -> Iterator[Span]:
    for group in request.resource_spans:
        resource = _plain(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=resource.get("service.name", ""),
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    attributes=_plain(span.attributes),
                    events=[event.name for event in span.events],
                    resource=resource,
                    raw=span,
                )


def _plain(attributes: Iterable[common_pb2.KeyValue]) -> dict[str, Any]:
    values = ((each.key, each.value) for each in attributes)
    return {key: getattr(value, value.WhichOneof("value") or "string_value") for key, value in values}


def _handler(take: Callable[[bytes], None]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take one export."""
            take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Nobody wants a line for every export."""

    return Handler
