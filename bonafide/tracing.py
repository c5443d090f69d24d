"""A caller's own traces, where it has them: the client's spans, and what tells the server that it is part of them.

Nothing of OpenTelemetry is needed or imported here. A process that uses its API has imported it, and then a call is
a span of the provider that this process has set, below its current span; without a provider, the current span
itself goes along. Never baggage.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bonafide.errors import ClientError

Headers = tuple[tuple[str, str], ...]


@contextmanager
def traced(name: str) -> Iterator[Headers]:
    """One call, all of its tries: a span around the block, which may be that of a generator.

    Yields:
        Headers for every try; none outside of a trace.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")  # half imported, it has no tracers yet
    if trace is None or not hasattr(trace, "get_tracer"):
        yield ()
        return
    span = trace.get_tracer("bonafide").start_span(name, kind=trace.SpanKind.CLIENT)
    try:
        yield _headers(span.get_span_context())
    except ClientError as error:
        span.set_attribute("error.type", error.reason)
        span.set_attribute("rpc.grpc.status_code", error.code)
        span.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        span.end()


def _headers(context: Any) -> Headers:  # noqa: ANN401 - a SpanContext of whatever version the process has
    """W3C trace context: https://www.w3.org/TR/trace-context/."""
    if not context.is_valid:
        return ()
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header()
    return (("traceparent", parent), *((("tracestate", state),) if state else ()))
