"""Counts and times the calls that a server answers, whatever becomes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pool

from services.common import health
from services.common.guard import Context, wrapped
from services.common.status import reason_in
from services.common.telemetry import (
    OTHER,
    REQUEST_DURATION,
    REQUESTS,
    REQUESTS_IN_FLIGHT,
    REQUESTS_REFUSED,
    Telemetry,
)

LAST_MOMENT_SECONDS = 0.05
"""A call that is cancelled so close to its deadline ended by it: callers' own clocks are first by the way's length."""


class RequestMetrics(grpc.aio.ServerInterceptor):
    """Stands before all other interceptors but that which opens the span; leaves out health.

    Args:
        telemetry: where it counts.
        services: full names of the services whose calls are expected.
    """

    def __init__(self, telemetry: Telemetry, services: Sequence[str]) -> None:
        self._telemetry = telemetry
        self._in_flight = 0
        pool = descriptor_pool.Default()
        methods = [method.name for name in services for method in pool.FindServiceByName(name).methods]
        telemetry.expect(REQUESTS, [{"method": method, "code": grpc.StatusCode.OK.name} for method in methods])
        telemetry.before_scrape(lambda: telemetry.show(REQUESTS_IN_FLIGHT, self._in_flight))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        if handler is None:  # what a caller calls a method is no label
            self._telemetry.count(REQUESTS, method=OTHER, code=grpc.StatusCode.UNIMPLEMENTED.name)
            return None
        if handler_call_details.method.startswith(health.METHODS):
            return handler
        return wrapped(handler, partial(self._measured, handler_call_details.method.rpartition("/")[2]))

    @asynccontextmanager
    async def _measured(self, method: str, context: Context) -> AsyncIterator[None]:
        began = time.perf_counter()
        code = grpc.StatusCode.UNKNOWN
        self._in_flight += 1
        try:
            yield
            code = cast("grpc.StatusCode | None", context.code()) or grpc.StatusCode.OK  # the stubs forget None
        except grpc.aio.AbortError:
            code = context.code()
            raise
        except (asyncio.CancelledError, GeneratorExit):  # the caller hung up, or its time was used up
            code = grpc.StatusCode.CANCELLED if _time_is_left(context) else grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        finally:
            self._in_flight -= 1
            self._telemetry.count(REQUESTS, method=method, code=code.name)
            self._telemetry.observe(REQUEST_DURATION, time.perf_counter() - began, method=method)
            if reason := reason_in(context.trailing_metadata() or ()):
                self._telemetry.count(REQUESTS_REFUSED, reason=reason)


def _time_is_left(context: Context) -> bool:
    left = cast("float | None", context.time_remaining())  # the stubs forget calls without a deadline
    return left is None or left > LAST_MOMENT_SECONDS
