"""``make observe``: the stack with a real Prometheus and a receiver of spans, clips for a while, and what is seen."""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import partial

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bonafide.client import Client, ClientError
from deploy.local.stack import ROOT, Stack, StackError, StackOptions, stop_signals_raise
from deploy.observe import report
from deploy.observe.clips import Kind, kinds
from deploy.observe.prometheus import Prometheus, PrometheusError
from deploy.observe.receiver import OtlpReceiver, Span, traced
from deploy.observe.tools import ToolsUnavailableError, fetch

RUN = ROOT / ".run" / "observe"
_AT_ONCE = 2
_SETTLE_SECONDS = 3.0
"""Time for the last scrapes and spans to arrive."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; exit code 0, or 1 where Prometheus or the stack cannot run."""
    parser = argparse.ArgumentParser(prog="make observe", description=__doc__)
    parser.add_argument("--count", type=int, default=0, help="clips to analyse; 12 when neither this nor --seconds")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long to go on sending clips")
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    wanted = parser.parse_args(arguments)
    console = Console()
    with stop_signals_raise():
        try:
            _observe(console, wanted.count or (0 if wanted.seconds else 12), wanted.seconds, keep=wanted.keep)
        except (ToolsUnavailableError, StackError, PrometheusError) as error:
            console.print(f"observe: {error}", style="red", highlight=False)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def _observe(console: Console, count: int, seconds: float, *, keep: bool) -> None:
    tools = fetch()
    say = partial(console.print, style="dim", highlight=False)
    say("making clips")
    clips = kinds(ROOT / ".cache" / "demo")
    with ExitStack() as running:
        receiver = running.enter_context(OtlpReceiver())
        running.enter_context(_client_traced(receiver.endpoint))
        stack = running.enter_context(Stack(traced(StackOptions(run_directory=RUN), receiver), say))
        prometheus = running.enter_context(Prometheus(tools, stack.metrics, RUN))
        prometheus.await_scrapes(30.0)
        say(f"prometheus scrapes {len(stack.metrics)} processes on {prometheus.url}")
        failed = _send(console, stack.gateway, clips, count, seconds)
        time.sleep(_SETTLE_SECONDS)
        _print(console, prometheus, receiver, stack.metrics, failed)
        if keep:
            console.print("up until Ctrl-C", style="bold")
            while True:
                time.sleep(0.5)
                for line in stack.tend():
                    say(line)


@contextmanager
def _client_traced(endpoint: str) -> Iterator[None]:
    """Within the block this process, too, sends its spans: those of the client."""
    provider = TracerProvider(resource=Resource.create({"service.name": "client"}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=True), schedule_delay_millis=500)
    )
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def _send(console: Console, gateway: str, clips: Sequence[Kind], count: int, seconds: float) -> list[ClientError]:
    """Analyse clips, two at a time, until there were so many or so long; answers what failed."""
    failed: list[ClientError] = []
    columns = (TextColumn("analysing clips"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Client(gateway) as client, Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=count or None)

        def one(kind: Kind) -> None:
            try:
                client.analyze(io.BytesIO(kind.copy()), name=kind.name, timeout=120)
            except ClientError as error:
                failed.append(error)
            progress.advance(bar)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            under_way = set()
            for kind in _wanted(clips, count, seconds):
                under_way.add(pool.submit(one, kind))
                if len(under_way) == _AT_ONCE:
                    under_way = wait(under_way, return_when=FIRST_COMPLETED).not_done
    return failed


def _wanted(clips: Sequence[Kind], count: int, seconds: float) -> Iterator[Kind]:
    ends = time.monotonic() + seconds if seconds else float("inf")
    for number, kind in enumerate(itertools.cycle(clips)):
        if (count and number >= count) or time.monotonic() >= ends:
            return
        yield kind


def _print(
    console: Console,
    prometheus: Prometheus,
    receiver: OtlpReceiver,
    addresses: Mapping[str, str],
    failed: Sequence[ClientError],
) -> None:
    console.print()
    for title, histogram, labels in (
        ("branches", "bonafide_branch_duration_seconds", ["branch"]),
        ("stages", "bonafide_stage_duration_seconds", ["component", "stage"]),
        ("models", "bonafide_model_call_duration_seconds", ["model"]),
    ):
        console.print(report.latency_table(prometheus, title, histogram, labels))
    console.print(report.budget_table(prometheus))
    console.print(report.trace_tree(slowest(receiver.spans)))
    console.print(report.pointers(prometheus, addresses))
    for error in failed:
        console.print(f"failed: {error}", style="red")
    for name, why in prometheus.broken_rules().items():
        console.print(f"rule {name}: {why}", style="red")


def slowest(spans: Sequence[Span]) -> list[Span]:
    """The spans of the trace whose longest span is the longest of all."""
    if not spans:
        return []
    longest = max(spans, key=lambda span: span.seconds)
    return [span for span in spans if span.trace_id == longest.trace_id]


if __name__ == "__main__":
    sys.exit(main())
