"""The client in a caller's own trace, where the caller has one."""

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bonafide import AsyncClient, Client, ClientError, RetryPolicy
from tests.bonafide.scripted import ScriptedGateway, info, serving, status

ROOT = Path(__file__).resolve().parents[2]
EAGER = RetryPolicy(first_pause_seconds=0.01)
REFUSAL = status(grpc.StatusCode.UNAVAILABLE, "not now", info("UNAVAILABLE"))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the provider of this process gets to see."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def sent(gateway: ScriptedGateway) -> list[str]:
    assert all("baggage" not in call.metadata for call in gateway.calls)
    return [str(call.metadata.get("traceparent", "")) for call in gateway.calls]


def called(address: str) -> None:
    with Client(address, retries=EAGER) as client:
        client.analyze(b"clip", timeout=20)


async def called_async(address: str) -> None:
    async with AsyncClient(address, retries=EAGER) as client:
        await client.analyze(b"clip", timeout=20)


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
async def test_all_tries_of_a_call_are_one_span_below_the_callers_own(
    spans: InMemorySpanExporter, *, sync: bool
) -> None:
    gateway = ScriptedGateway(refusals=[REFUSAL])
    async with serving(gateway) as address:
        token = context.attach(baggage.set_baggage("media", "AAAA"))
        with trace.get_tracer("app").start_as_current_span("app") as app:
            await (asyncio.to_thread(called, address) if sync else called_async(address))
        context.detach(token)
    mine, _ = spans.get_finished_spans()
    assert mine.name == "bonafide.analyze"
    assert mine.kind is trace.SpanKind.CLIENT
    assert mine.parent == app.get_span_context()
    own = mine.get_span_context()
    assert own is not None
    assert sent(gateway) == [f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"] * 2


async def test_a_call_that_fails_is_an_error_of_its_span(spans: InMemorySpanExporter) -> None:
    refusal = status(grpc.StatusCode.INVALID_ARGUMENT, "no media", info("UNSUPPORTED_MEDIA"))
    async with serving(ScriptedGateway(refusals=[refusal])) as address:
        with pytest.raises(ClientError):
            await called_async(address)
    (mine,) = spans.get_finished_spans()
    assert mine.status.status_code is trace.StatusCode.ERROR
    assert (mine.attributes or {})["error.type"] == "UNSUPPORTED_MEDIA"


async def test_without_a_provider_the_callers_span_itself_goes_along() -> None:
    gateway = ScriptedGateway()
    theirs = trace.SpanContext(0xAB, 0xCD, is_remote=False, trace_state=trace.TraceState([("vendor", "1")]))
    async with serving(gateway) as address:
        with trace.use_span(trace.NonRecordingSpan(theirs)):
            await called_async(address)
        await called_async(address)
    assert sent(gateway) == [f"00-{0xAB:032x}-{0xCD:016x}-00", ""]
    assert gateway.calls[0].metadata["tracestate"] == "vendor=1"


def test_the_client_needs_nothing_of_opentelemetry() -> None:
    code = "import sys, bonafide.aio, bonafide.cli; sys.exit(any('opentelemetry' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0
