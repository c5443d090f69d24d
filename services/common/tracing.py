"""One trace from the caller to the networks and back: where the running task is in it, and spans below that.

The door of a service sets the place for the task that serves a call (``hops.py``); tasks and
``asyncio.to_thread`` workers that the call starts inherit it, and ``span`` opens another below. Outside of a call,
and where traces go nowhere, ``span`` does nothing. There is no global provider, and no baggage: what calls carry
is the trace's own ``traceparent`` and ``tracestate``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from services.common.errors import BonafideError, Kind
from services.common.evidence import Branch, BranchReport, Outcome

if TYPE_CHECKING:  # its kit is only needed where spans are sent
    from services.common.trace_export import Tracing

_FAULTS = frozenset({Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.INTERNAL})
_WIRE = TraceContextTextMapPropagator()
_LONGEST_HEADER = 512
"""What everybody must pass on of a ``tracestate``; longer ones would fill the metadata of further calls."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a trace a task is; without ``tracing`` the trace only passes through."""

    span: Span
    tracing: Tracing | None


_place: ContextVar[_Place | None] = ContextVar("bonafide_place_in_trace", default=None)


def enter_trace(tracing: Tracing | None, headers: Mapping[str, str], name: str, attributes: Attributes) -> Span:
    """Begin the span of a call that has come in, as the child of what its headers say.

    It holds for the running task and those that it starts; nothing undoes it, and the caller ends the span.
    """
    carried = {key: value for key, value in headers.items() if key in _WIRE.fields and len(value) <= _LONGEST_HEADER}
    parent = get_current_span(_WIRE.extract(carried, Context()))
    if tracing is None:
        _place.set(_Place(parent, None) if parent.get_span_context().is_valid else None)
        return INVALID_SPAN
    opened = tracing.start(name, parent, SpanKind.SERVER, attributes)
    _place.set(_Place(opened, tracing))
    return opened


@contextmanager
def span(name: str, attributes: Attributes = None, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[Span]:
    """A span below the present place, around a block that does not yield; an error that leaves it is noted."""
    place = _place.get()
    if place is None or place.tracing is None:
        yield INVALID_SPAN
        return
    opened = place.tracing.start(name, place.span, kind, attributes)
    token = _place.set(_Place(opened, place.tracing))
    try:
        yield opened
    except BaseException as error:
        note_error(opened, error)
        raise
    finally:
        _place.reset(token)
        opened.end()


@contextmanager
def branch_span(branch: Branch) -> Iterator[Span]:
    """The span of one branch's work."""
    with span(f"branch {branch}", {"bonafide.branch": branch.value}) as opened:
        yield opened


def note_report(opened: Span, report: BranchReport) -> None:
    """Write down on a branch's span what became of it."""
    opened.set_attribute("bonafide.outcome", report.outcome.value)
    if report.reason is not None:
        opened.set_attribute("bonafide.reason", report.reason.value)
    if report.outcome in {Outcome.FAILED, Outcome.TIMED_OUT}:
        opened.set_status(StatusCode.ERROR)


def note_error(opened: Span, error: BaseException) -> None:
    """Write down on a span that it ended with an error.

    Only its kind, never its text, which may quote the caller's input. What the caller did wrong, and what was
    cancelled, is no error of the span.
    """
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        opened.set_attribute("bonafide.cancelled", value=True)
        return
    if isinstance(error, BonafideError):
        opened.set_attribute("error.type", error.reason)
        if error.kind not in _FAULTS:
            return
    else:
        opened.set_attribute("error.type", type(error).__qualname__)
    opened.set_status(StatusCode.ERROR)


def current_span() -> Span:
    """The span of the running task, for attributes and events; one that takes none outside of a trace."""
    place = _place.get()
    return INVALID_SPAN if place is None or place.tracing is None else place.span


def current_ids() -> tuple[str, str] | None:
    """Trace id and span id of the running task as lower-case hex, for the log; None outside of a trace."""
    place = _place.get()
    if place is None:
        return None
    context = place.span.get_span_context()
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def exemplar() -> dict[str, str] | None:
    """What links a measurement made now to a trace that can be looked up; None where none will be."""
    place, ids = _place.get(), current_ids()
    if place is None or ids is None or not _sampled(place):
        return None
    return {"trace_id": ids[0]}


def outgoing() -> dict[str, str]:
    """Headers by which a call made now goes on with the trace; none outside of one.

    They say "sampled" when it is known by now that the trace is kept, and the callee then keeps its part.
    """
    place = _place.get()
    if place is None:
        return {}
    here = place.span.get_span_context()
    flags = TraceFlags(here.trace_flags & ~TraceFlags.SAMPLED | (TraceFlags.SAMPLED if _sampled(place) else 0))
    told = SpanContext(here.trace_id, here.span_id, is_remote=False, trace_flags=flags, trace_state=here.trace_state)
    headers: dict[str, str] = {}
    _WIRE.inject(headers, set_span_in_context(NonRecordingSpan(told), Context()))
    return headers


def outgoing_if_kept() -> dict[str, str] | None:
    """The same for a callee that sends its spans whatever the headers say; None for a trace that is not kept."""
    place = _place.get()
    return outgoing() if place is not None and _sampled(place) else None


def _sampled(place: _Place) -> bool:
    if place.tracing is None:
        return place.span.get_span_context().trace_flags.sampled
    return place.tracing.kept(place.span)
