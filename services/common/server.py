"""One process for all services: a guarded gRPC server with health and reflection, readiness that means it, a drain.

The order of a stop: health says NOT_SERVING, callers get time to notice, calls in flight end, collaborators
are closed. A second signal skips the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.connections import server_options
from services.common.errors import BonafideError
from services.common.exposition import Exposition
from services.common.guard import Admit, Guard
from services.common.health import Health
from services.common.hops import ArrivingHop
from services.common.logs import log_loop_errors, set_up_logs
from services.common.memory import keep_freed_memory
from services.common.peers import PeerAllowList
from services.common.refusal import ConfigurationError
from services.common.request_metrics import RequestMetrics
from services.common.settings import ServiceSettings, Settings, load_settings
from services.common.telemetry import READY, Telemetry
from services.common.tls import add_port
from services.common.trace_export import open_tracing
from services.common.validation import Rules, RulesInterceptor

EXIT_REFUSED = 78
"""Exit code of a process whose settings must not run (EX_CONFIG of sysexits.h)."""

EXIT_HURRIED = 1
"""Exit code of a process that a second signal ended before it was done with its stop."""

HEALTH_SERVICE = str(health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
_CLOSE_SECONDS = 5.0
_HURRY_SECONDS = 2.0
_log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Service:
    """What a composition root hands over to be served.

    ``names`` are full gRPC service names; ``register`` adds servicers; ``ready`` raises a BonafideError
    while the service must not get traffic; ``close`` lets go of collaborators after the last call;
    ``admit`` are asked in order at the start of every call but those of health; ``background`` runs beside the
    calls and is cancelled when the stop begins.
    """

    title: str
    names: Sequence[str]
    register: Callable[[grpc.aio.Server], None]
    ready: Check
    telemetry: Telemetry
    close: Sequence[Check] = ()
    admit: Sequence[Admit] = ()
    background: Sequence[Callable[[], Coroutine[None, None, None]]] = ()


class ServiceProcess:
    """Runs one Service until it is told to stop."""

    def __init__(self, service: Service, settings: ServiceSettings) -> None:
        self._service = service
        self._settings = settings
        self._health = Health(service.names)
        self._metrics = Exposition(service.telemetry)
        self._tracing = open_tracing(service.title, settings)
        self._state = ""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; returns after a graceful drain, or at once after a second signal."""
        stop, hurry = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def told() -> None:
            if stop.is_set():
                loop.call_later(_HURRY_SECONDS, os._exit, EXIT_HURRIED)  # whatever hangs by then
                hurry.set()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)
        await self.serve(stop, hurry)

    async def serve(self, stop: asyncio.Event, hurry: asyncio.Event | None = None) -> None:
        """Serve until ``stop`` is set, then drain; ``hurry`` ends the drain."""
        hurry = hurry or asyncio.Event()
        server, probes = self._server(), self._probe_server()
        port = add_port(server, self._settings.listen, self._settings.door())
        if self._settings.metrics_listen:
            await self._metrics.start(self._settings.metrics_listen)
        await server.start()
        if probes is not None:
            await probes.start()
        host = self._settings.listen.rpartition(":")[0]
        _log.info("%s listens on %s:%d", self._service.title, host, port)
        beside = [asyncio.create_task(task()) for task in (self._watch_readiness, *self._service.background)]
        await stop.wait()
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await self._drain(server, hurry)
        for close in self._service.close:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(close(), _CLOSE_SECONDS)
        if probes is not None:
            await probes.stop(None)
        await self._metrics.close()
        if self._tracing is not None:
            await self._tracing.close()
        _log.info("%s stopped", self._service.title)

    def _server(self) -> grpc.aio.Server:
        settings = self._settings
        admit = list(self._service.admit)
        if settings.allowed_peers:
            admit.insert(0, PeerAllowList(settings.allowed_peers).admit)
        server = grpc.aio.server(
            interceptors=[
                ArrivingHop(self._tracing),
                RequestMetrics(self._service.telemetry, self._service.names),
                *(Guard(each) for each in admit),
                RulesInterceptor(Rules()),
            ],
            options=server_options(settings.connection_limits()),
        )
        self._service.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if settings.reflection:
            names = [*self._service.names, HEALTH_SERVICE, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, server)
        return server

    def _probe_server(self) -> grpc.aio.Server | None:
        """A server in plain text that carries health and nothing else; None without a port for it."""
        if not self._settings.health_listen:
            return None
        server = grpc.aio.server(options=server_options(self._settings.probe_limits()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add_port(server, self._settings.health_listen, None)
        return server

    async def _drain(self, server: grpc.aio.Server, hurry: asyncio.Event) -> None:
        self._set_ready(ready=False)
        _log.info("%s drains", self._service.title)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), self._settings.drain_notice_seconds)
        self._health.end_watches()
        ending = asyncio.create_task(server.stop(self._settings.drain_seconds))
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait((ending, hurrying), return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        await server.stop(None)
        await ending

    async def _watch_readiness(self) -> None:
        while True:
            try:
                await self._service.ready()
            except BonafideError as error:
                self._set_ready(ready=False)
                self._note(f"not ready: {error.message}")
                pause = min(self._settings.readiness_interval_seconds, 0.5)
            except Exception:  # noqa: BLE001 - a broken check means not ready, not a dead watcher
                self._set_ready(ready=False)
                _log.exception("the readiness check itself failed")
                pause = self._settings.readiness_interval_seconds
            else:
                self._set_ready(ready=True)
                self._note("ready")
                pause = self._settings.readiness_interval_seconds
            await asyncio.sleep(pause)

    def _set_ready(self, *, ready: bool) -> None:
        self._health.set_ready(ready=ready)
        self._service.telemetry.show(READY, ready)

    def _note(self, state: str) -> None:
        if state != self._state:
            self._state = state
            _log.info("%s %s", self._service.title, state)


def start(settings_type: type[Settings], build: Callable[[Settings], Service]) -> None:
    """Read the settings, build the service, serve until told to stop. The last line of every ``__main__``.

    Settings that must not run end the process with one sentence on stderr and EXIT_REFUSED.
    """
    try:
        settings = load_settings(settings_type)
        service = build(settings)
        run(service, settings)
    except ConfigurationError as error:
        print(f"refuses to start: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_REFUSED)


def run(service: Service, settings: ServiceSettings) -> None:
    """Log to stderr and serve until told to stop."""
    keep_freed_memory()
    set_up_logs(service.title, settings.log_level, settings.log_format)
    # Channels to other servers belong to the loop that was current when the composition made them.
    with asyncio.Runner(loop_factory=asyncio.get_event_loop) as runner:
        runner.get_loop().set_exception_handler(log_loop_errors)
        runner.run(ServiceProcess(service, settings).run())
