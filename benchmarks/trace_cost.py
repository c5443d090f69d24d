"""What the spans of one analysis cost a service in processor time and memory: without a receiver, held back, sent."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from contextvars import copy_context
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import INVALID_SPAN, SpanKind

from services.common.trace_export import Tracing
from services.common.trace_outcomes import MOST_SPANS, OutcomeRules
from services.common.tracing import enter_trace, span

MEASURED = Path(__file__).parents[1] / "docs" / "capacity" / "measured.json"
CLIP = "360p 10 s"
STAGES = 24
"""Spans of one analysis besides those of model calls: calls between services, stages, branches."""
ROUNDS, REPEATS = 9, 20
_HEAD = """# What traces cost

Processor time of the {spans} spans of one clip ({clip}: {calls} model calls and {stages} others), medians of {rounds}
rounds on two shared, busy cores, and its share of the {analysis:.2f} s that all processes spend on that clip
(docs/capacity.md). Written by `make bench-traces PAGE=docs/trace-cost.md`.

| | µs a span | ms an analysis | share |
|---|---|---|---|"""


class _Encoder(SpanExporter):
    """Does what the real one does before it sends."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


def _one_analysis(tracing: Tracing | None, spans: int) -> None:
    """As many spans, three deep, with the attributes of those of model calls."""
    root = enter_trace(tracing, {}, "bonafide.v1.VisualService/AnalyzeFaces", {"rpc.system": "grpc"})
    with span("detect"):
        for _ in range(spans - 2):
            with span("infer face_detector", {"bonafide.model": "face_detector"}):
                pass
    root.end()


def _microseconds(ratio: float | None, spans: int) -> float:
    """Processor time of a span, sending included: median; None means that spans go nowhere."""
    seconds = []
    for _ in range(ROUNDS):
        tracing = None if ratio is None else Tracing("visual", OutcomeRules(ratio, 60.0), _Encoder())
        began = time.process_time()
        for _ in range(REPEATS):
            copy_context().run(_one_analysis, tracing, spans)
        if tracing is not None:
            asyncio.run(tracing.close())
        seconds.append((time.process_time() - began) / REPEATS / spans)
    return statistics.median(seconds) * 1e6


def _held_bytes(spans: int) -> float:
    """Memory of one span that is held back."""
    tracing = Tracing("visual", OutcomeRules(0.0, 60.0), _Encoder())
    root = tracing.start("root", INVALID_SPAN, SpanKind.SERVER, {})
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(spans):
        tracing.start("infer face_detector", root, SpanKind.CLIENT, {"bonafide.model": "face_detector"}).end()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    root.end()
    asyncio.run(tracing.close())
    return taken / spans


def main() -> None:
    """Measure, print a table and, when asked, write Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="also write the table as Markdown")
    options = parser.parse_args()
    clip = json.loads(MEASURED.read_text(encoding="utf-8"))["clips"][CLIP]
    calls = sum(use["calls"] for use in clip["model_use"].values())
    analysis = sum(clip["processor_seconds"].values())
    spans = calls + STAGES
    lines = [_HEAD.format(spans=spans, clip=CLIP, calls=calls, stages=STAGES, rounds=ROUNDS, analysis=analysis)]
    for title, ratio in (("no receiver", None), ("held back, then forgotten", 0.0), ("kept, encoded", 1.0)):
        each = _microseconds(ratio, spans)
        whole = each * spans / 1000
        lines.append(f"| {title} | {each:.1f} | {whole:.2f} | {whole / 1000 / analysis:.3%} |")
    held = _held_bytes(min(spans, 500))
    lines.append(f"\nA span that is held back takes {held / 1024:.1f} KiB; at most {MOST_SPANS} are.\n")
    text = "\n".join(lines)
    print(text)
    if options.page is not None:
        options.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
