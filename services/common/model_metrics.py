"""Counts and times calls to models, as those who make them see it, and says which models are at work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

from opentelemetry.trace import SpanKind

from services.common.errors import BonafideError, Kind
from services.common.evidence import ModelInfo
from services.common.models import ModelCard
from services.common.telemetry import (
    MODEL_CALL_DURATION,
    MODEL_CALLS,
    MODEL_INFO,
    MODEL_REJECTIONS,
    MODEL_SERVICES,
    Telemetry,
)
from services.common.tracing import span

_DONE, _GIVEN_UP = "OK", "CANCELLED"


class ModelMetrics:
    """Turns calls to models into metrics."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    @classmethod
    def unscraped(cls) -> Self:
        """Of those who run models where nobody scrapes: training, benchmarks, tests."""
        return cls(Telemetry(min(MODEL_SERVICES)))

    @contextmanager
    def call(self, model: str) -> Iterator[None]:
        """Around one call, with all its waiting and its retries; it is a span of its trace too."""
        began = time.perf_counter()
        code: str = Kind.INTERNAL
        with span(f"infer {model}", {"bonafide.model": model}, SpanKind.CLIENT):
            try:
                yield
                code = _DONE
            except BonafideError as error:
                code = error.kind
                raise
            except asyncio.CancelledError:
                code = _GIVEN_UP
                raise
            finally:
                self._telemetry.count(MODEL_CALLS, model=model, code=code)
                self._telemetry.observe(MODEL_CALL_DURATION, time.perf_counter() - began, model=model)

    def rejected(self, model: str, reason: str) -> None:
        """The inference server did not take, or did not finish, one attempt; Triton itself counts no full queue."""
        self._telemetry.count(MODEL_REJECTIONS, model=model, reason=reason)

    def at_work(self, models: Iterable[ModelCard | ModelInfo], group: str = "networks") -> None:
        """These have been verified and serve now, and no others of their group."""
        shown: dict[tuple[str, ...], float] = {(each.name, each.version, each.sha256): 1 for each in models}
        self._telemetry.show_only(MODEL_INFO, shown, group)
