"""grpc.health.v1, in a form that many watchers at once may use, and the names that a service answers to.

The packaged servicer for asyncio forgets all watchers of a name when one of them leaves, and a watcher that
does not read holds up every change; both matter once several gateways watch each replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LIVENESS = "liveness"
"""SERVING as long as the process answers, while it drains too."""

READINESS = "readiness"
"""SERVING while the service wants calls; so do the empty name and the full names of its gRPC services."""

STARTUP = "startup"
"""SERVING from the first time that the service was ready."""

METHODS = "/grpc.health.v1.Health/"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):
    """The health of one process, for any number of servers; lives on one event loop."""

    def __init__(self, services: Sequence[str]) -> None:
        self._ready_names = ("", READINESS, *services)
        self._statuses = {LIVENESS: _SERVING, STARTUP: _NOT_SERVING, **dict.fromkeys(self._ready_names, _NOT_SERVING)}
        self._changed = asyncio.Event()
        self._closed = False

    def set_ready(self, *, ready: bool) -> None:
        """Say whether the service wants calls."""
        for name in self._ready_names:
            self._statuses[name] = _SERVING if ready else _NOT_SERVING
        if ready:
            self._statuses[STARTUP] = _SERVING
        self._wake()

    def end_watches(self) -> None:
        """End all streams of watchers, which would otherwise hold up the server's stop."""
        self._closed = True
        self._wake()

    async def Check(  # noqa: N802 - the contract's name
        self,
        request: Any,  # noqa: ANN401 - grpc_health is untyped
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> Any:  # noqa: ANN401
        """See grpc.health.v1."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such name")
        return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    async def Watch(  # noqa: N802 - the contract's name
        self,
        request: Any,  # noqa: ANN401
        context: grpc.aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> AsyncIterator[Any]:
        """See grpc.health.v1."""
        told: int | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _UNKNOWN)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            elif self._closed:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
