"""Traces over real calls to a real receiver: who is whose parent, what is kept, and what never leaves."""

import contextlib
import json
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack
from contextvars import copy_context
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from deploy.local.authority import Authority
from deploy.observe.receiver import OtlpReceiver, edges
from services.common.channels import open_channel
from services.common.hops import CONTENT_KEY, REQUEST_KEY
from services.common.refusal import ConfigurationError
from services.common.settings import ServiceSettings
from services.common.status import from_rpc_error, unary_errors
from services.common.subject import Subject, current_subject, set_subject
from services.common.trace_export import open_tracing
from services.common.trace_outcomes import OutcomeRules, OutcomeSampling
from services.common.tracing import current_ids, enter_trace, exemplar, outgoing, span
from tests.common.serving import Fusion, free_address, serving

METHOD = "bonafide.v1.FusionService/Fuse"
TRACE_ID = 0xABCDEF
PARENT = f"00-{TRACE_ID:032x}-{0x123:016x}-"
SAMPLED, UNSAMPLED = PARENT + "01", PARENT + "00"
HASH = "ab" * 32


class Relay(Fusion):
    """Asks another service, after a stage of its own that fails where the policy says so."""

    def __init__(self, other: grpc.aio.Channel) -> None:
        super().__init__()
        self._stub: Any = fusion_pb2_grpc.FusionServiceStub(other)

    @unary_errors
    async def Fuse(self, request: fusion_pb2.FuseRequest, context: Any) -> fusion_pb2.FuseResponse:  # noqa: N802, ARG002
        set_subject(Subject("request ü", HASH))
        with contextlib.suppress(ValueError), span("prepare"):
            json.loads("my-holiday.mp4" if request.policy == "trouble" else "{}")
        try:
            answer: fusion_pb2.FuseResponse = await self._stub.Fuse(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "the other service") from error
        return answer


class Other(Fusion):
    """Remembers what its calls carried."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata: list[dict[str, str | bytes]] = []
        self.subjects: list[Subject] = []

    async def Fuse(self, request: fusion_pb2.FuseRequest, context: Any) -> fusion_pb2.FuseResponse:  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        self.subjects.append(current_subject())
        answer: fusion_pb2.FuseResponse = await super().Fuse(request, context)
        return answer


class Pair:
    """A service that asks another, and a caller."""

    def __init__(self, endpoint: str, **settings: Any) -> None:
        self._settings = {"otlp_endpoint": endpoint, "trace_sample_ratio": 0.0, "trace_slow_seconds": 60.0, **settings}
        self._stack = AsyncExitStack()
        self.other = Other()

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        other = await enter(serving(servicer=self.other, **self._settings))
        between = await enter(open_channel(other.address, max_message_bytes=1 << 20))
        relay = await enter(serving(servicer=Relay(between), **self._settings))
        channel = await enter(grpc.aio.insecure_channel(relay.address))
        self._stub: Any = fusion_pb2_grpc.FusionServiceStub(channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(self, policy: str = "", **headers: str) -> None:
        metadata = tuple(headers.items())
        await self._stub.Fuse(fusion_pb2.FuseRequest(policy=policy), timeout=20, metadata=metadata, wait_for_ready=True)


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(autouse=True)
def empty(receiver: OtlpReceiver) -> None:
    receiver.spans.clear()


async def test_one_trace_goes_through_two_services_and_is_sent_when_they_stop(receiver: OtlpReceiver) -> None:
    async with Pair(receiver.endpoint) as pair:
        await pair.ask(traceparent=SAMPLED, tracestate="vendor=1", baggage="media=AAAA", **{"x-api-key": "secret"})
    spans = receiver.trace(f"{TRACE_ID:032x}")
    assert len(spans) == len(receiver.spans) == 4
    root = spans[0]
    assert (root.parent_id, root.kind, root.name) == (f"{0x123:016x}", "server", METHOD)
    assert edges(spans) == {
        (f"fusion: {METHOD}", "fusion: prepare"),
        (f"fusion: {METHOD}", f"fusion: {METHOD}"),
    }
    assert [each.kind for each in spans if each.name == METHOD] == ["server", "client", "server"]
    assert root.attributes["rpc.grpc.status_code"] == 0
    assert root.resource["service.namespace"] == "bonafide"


async def test_what_a_call_carries_on_is_its_trace_and_its_subject_and_no_baggage(receiver: OtlpReceiver) -> None:
    async with Pair(receiver.endpoint) as pair:
        await pair.ask(traceparent=SAMPLED, tracestate="vendor=1", baggage="media=AAAA", **{"x-api-key": "secret"})
        (carried,) = pair.other.metadata
        assert carried.keys() - {"user-agent"} == {"traceparent", "tracestate", REQUEST_KEY, CONTENT_KEY}
        assert pair.other.subjects == [Subject("request ü", HASH)]
    assert all("AAAA" not in str(each.raw) and "secret" not in str(each.raw) for each in receiver.spans)


@pytest.mark.parametrize(
    ("policy", "ratio", "kept"),
    [("", 0.0, 0), ("", 1.0, 4), ("crash", 0.0, 4), ("invalid", 0.0, 4), ("trouble", 0.0, 4)],
    ids=["ordinary", "chosen", "error", "error that the other calls the caller's", "error on the way"],
)
async def test_ordinary_traces_go_by_ratio_and_errors_always(
    receiver: OtlpReceiver, policy: str, ratio: float, kept: int
) -> None:
    async with Pair(receiver.endpoint, trace_sample_ratio=ratio) as pair:
        try:
            await pair.ask(policy, traceparent=UNSAMPLED)
        except grpc.aio.AioRpcError:
            assert policy in {"crash", "invalid"}
    # Of an error that is not its own, the other service knows nothing: it keeps no part.
    assert len(receiver.spans) == (3 if policy == "invalid" else kept)
    assert all("my-holiday" not in str(each.raw) and "/secret/path" not in str(each.raw) for each in receiver.spans)


async def test_slow_traces_always_go(receiver: OtlpReceiver) -> None:
    async with Pair(receiver.endpoint, trace_slow_seconds=0.25) as pair:
        await pair.ask("slow", traceparent=UNSAMPLED)
    assert len(receiver.spans) == 4


async def test_a_receiver_that_refuses_or_is_gone_costs_no_request(receiver: OtlpReceiver) -> None:
    async def ask(endpoint: str) -> None:
        async with (
            serving(otlp_endpoint=endpoint, trace_sample_ratio=1.0) as running,
            open_channel(running.address, max_message_bytes=1 << 20) as channel,
        ):
            await fusion_pb2_grpc.FusionServiceStub(channel).Fuse(fusion_pb2.FuseRequest(), timeout=20)

    receiver.refusing = grpc.StatusCode.UNAVAILABLE
    try:
        await ask(receiver.endpoint)
    finally:
        receiver.refusing = None
    assert receiver.refused > 0
    await ask(f"http://{free_address()}")
    assert receiver.spans == []


async def test_spans_go_by_tls_to_receivers_whose_authority_is_trusted(tmp_path: Path) -> None:
    files = Authority().issue("collector", tmp_path, loopback=True)
    assert files.key is not None
    assert files.chain is not None
    credentials = grpc.ssl_server_credentials([(files.key.read_bytes(), files.chain.read_bytes())])
    with OtlpReceiver(credentials) as receiver:
        async with Pair(receiver.endpoint, otlp_authorities=files.authorities, trace_sample_ratio=1.0) as pair:
            await pair.ask()
        assert len(receiver.spans) == 4
    missing = ServiceSettings(otlp_endpoint=receiver.endpoint, otlp_authorities=tmp_path / "missing.pem")
    with pytest.raises(ConfigurationError, match="otlp_authorities cannot be read"):
        open_tracing("visual", missing)


async def test_without_a_receiver_the_callers_trace_passes_through() -> None:
    async with Pair("") as pair:
        await pair.ask(traceparent=SAMPLED)
        await pair.ask()
        traced, untraced = pair.other.metadata
    assert traced["traceparent"] == SAMPLED
    assert "traceparent" not in untraced


class Sink(SpanProcessor):
    """Remembers what is sent."""

    def __init__(self) -> None:
        self.sent: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.sent.append(span)


class Held:
    """Spans that are held back by these rules."""

    def __init__(self, most_spans: int = 1000, **rules: float) -> None:
        self.sink = Sink()
        self.sampling = OutcomeSampling(
            OutcomeRules(**{"ratio": 0.0, "slow_seconds": 60.0, **rules}), self.sink, most_spans
        )
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.sampling)
        self._tracer = provider.get_tracer("test")

    def start(self, parent: trace.Span | None = None) -> trace.Span:
        return self._tracer.start_span("a", trace.set_span_in_context(parent or trace.INVALID_SPAN))


def test_all_services_choose_the_same_traces() -> None:
    drawn = random.Random(7)
    ids = [drawn.getrandbits(128) for _ in range(2000)]
    chosen = {each for each in ids if OutcomeRules(0.25, 1.0).chosen(each)}
    assert 400 < len(chosen) < 600
    assert chosen < {each for each in ids if OutcomeRules(0.5, 1.0).chosen(each)}
    assert all(OutcomeRules(1.0, 1.0).chosen(each) and not OutcomeRules(0.0, 1.0).chosen(each) for each in ids)


def test_spans_wait_for_the_last_of_their_trace_here() -> None:
    held = Held()
    root = held.start()
    late = held.start(root)
    held.start(root).end()
    root.end()
    assert held.sampling.held_spans == 2
    late.set_status(trace.StatusCode.ERROR)
    late.end()
    assert (len(held.sink.sent), held.sampling.held_spans) == (3, 0)


def test_memory_for_spans_that_wait_has_an_end() -> None:
    held = Held(most_spans=100)
    roots = [held.start() for _ in range(12)]
    for root in roots:
        for _ in range(15):
            held.start(root).end()
        assert held.sampling.held_spans <= 100
    assert held.sampling.held_spans == 100
    roots[0].set_status(trace.StatusCode.ERROR)
    for root in roots:
        root.end()
    assert held.sampling.held_spans == 0
    assert len(held.sink.sent) == 11  # a tenth of the whole, and its root


def test_a_trace_that_has_become_slow_or_failed_is_sampled_for_those_who_are_asked_next() -> None:
    held = Held()
    root, other = held.start(), held.start()
    trace_id, other_id = (each.get_span_context().trace_id for each in (root, other))
    assert not held.sampling.kept(trace_id)
    child = held.start(root)
    child.set_status(trace.StatusCode.ERROR)
    child.end()
    assert held.sampling.kept(trace_id)
    assert not held.sampling.kept(other_id)
    assert Held(slow_seconds=1e-9).sampling.kept(trace_id) is False  # nothing is known of it there


def test_outside_of_a_trace_nothing_happens() -> None:
    def look() -> tuple[Any, ...]:
        with span("a") as opened:
            return current_ids(), exemplar(), outgoing(), opened.is_recording()

    assert copy_context().run(look) == (None, None, {}, False)


def test_headers_that_are_no_trace_are_not_believed() -> None:
    def enter(header: str) -> Any:
        enter_trace(None, {"traceparent": header}, "", {})
        return current_ids()

    for header in ("", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 10_000):
        assert copy_context().run(enter, header) is None
    for state, passed in (("vendor=" + "x" * 200, True), ("vendor=" + "x" * 255 + ",other=" + "x" * 250, False)):
        enter_and_leave = copy_context()
        enter_and_leave.run(enter_trace, None, {"traceparent": SAMPLED, "tracestate": state}, "", {})
        assert ("tracestate" in enter_and_leave.run(outgoing)) is passed
    assert copy_context().run(enter, SAMPLED) == (f"{TRACE_ID:032x}", f"{0x123:016x}")
