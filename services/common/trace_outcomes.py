"""Which traces are sent away: decided when it is known how they went.

Errors and slow calls always go, and so does what a caller has sampled; of the ordinary rest a share goes that is
chosen by trace id, so that every service chooses the same. Each process decides about the spans of its own: it
holds those of a trace back for as long as one of them is open here, and lets them go or forgets them when the
last has ended. ``docs/decisions/0010-traces-by-outcome.md`` says what that cannot do.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanContext, StatusCode, get_current_span

MOST_SPANS = 20_000
"""Held back at one time in all; later ones of undecided traces are lost."""
MOST_TRACES = 4_000
"""Undecided at one time; the oldest makes room."""
_RATIO_BITS = 64


@dataclass(frozen=True, slots=True)
class OutcomeRules:
    """What is kept besides errors.

    ``ratio`` is the share of ordinary traces, [0, 1]; ``slow_seconds`` how long a span takes that makes its
    trace slow.
    """

    ratio: float
    slow_seconds: float

    def chosen(self, trace_id: int) -> bool:
        """Whether an ordinary trace is among those that go; the same in every process with this ratio."""
        low = trace_id & ((1 << _RATIO_BITS) - 1)
        return low < round(self.ratio * (1 << _RATIO_BITS))


@dataclass(slots=True)
class _Part:
    """This process's part of a trace; ``began`` is monotonic seconds."""

    keep: bool
    began: float
    open: int = 0
    spans: list[ReadableSpan] = field(default_factory=list)


class OutcomeSampling(SpanProcessor):
    """Holds spans back until their trace is worth sending; safe from any thread.

    Args:
        rules: what is kept.
        sink: where spans go that are kept.
        most_spans: how many are held back at one time; one trace may have a tenth.
    """

    def __init__(self, rules: OutcomeRules, sink: SpanProcessor, most_spans: int = MOST_SPANS) -> None:
        self._most_spans = most_spans
        self._rules = rules
        self._sink = sink
        self._parts: OrderedDict[int, _Part] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held_spans(self) -> int:
        """Spans held back now."""
        return self._held

    def kept(self, trace_id: int) -> bool:
        """Whether a trace that is open here will be kept, as far as can be told by now."""
        with self._lock:
            part = self._parts.get(trace_id)
            if part is None:
                return False
            if not part.keep and time.monotonic() - part.began >= self._rules.slow_seconds:
                self._keep(part)
            return part.keep

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See SpanProcessor."""
        context = _context(span)
        caller = get_current_span(parent_context).get_span_context()
        sampled = caller.is_remote and caller.trace_flags.sampled
        with self._lock:
            part = self._parts.get(context.trace_id)
            if part is None:
                part = _Part(self._rules.chosen(context.trace_id), time.monotonic())
                self._parts[context.trace_id] = part
                if len(self._parts) > MOST_TRACES:
                    self._held -= len(self._parts.popitem(last=False)[1].spans)
            part.open += 1
            if sampled:
                self._keep(part)

    def on_end(self, span: ReadableSpan) -> None:
        """See SpanProcessor."""
        trace_id = _context(span).trace_id
        with self._lock:
            part = self._parts.get(trace_id)
            if part is None:  # made room for others
                return
            part.open -= 1
            if not part.open:
                del self._parts[trace_id]
            if self._worth_keeping(span):
                self._keep(part)
            if part.keep:
                self._sink.on_end(span)
            elif not part.open:
                self._held -= len(part.spans)
            elif self._held < self._most_spans and len(part.spans) < self._most_spans / 10:
                part.spans.append(span)
                self._held += 1

    def shutdown(self) -> None:
        """See SpanProcessor."""
        self._sink.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See SpanProcessor."""
        return self._sink.force_flush(timeout_millis)

    def _keep(self, part: _Part) -> None:
        part.keep = True
        self._held -= len(part.spans)
        for span in part.spans:
            self._sink.on_end(span)
        part.spans.clear()

    def _worth_keeping(self, span: ReadableSpan) -> bool:
        if span.status.status_code is StatusCode.ERROR:
            return True
        seconds = ((span.end_time or 0) - (span.start_time or 0)) / 1e9
        return seconds >= self._rules.slow_seconds


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context
