"""One server for all services: gRPC with health and reflection, readiness that means it, and a drain.

Health names: the empty name and each service's full name are SERVING only while the readiness check
passes; ``liveness`` is SERVING as long as the process answers.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.errors import BonafideError
from services.common.inference import InferenceEngine, TritonEngine
from services.common.memory import keep_freed_memory
from services.common.models import ModelRepository
from services.common.settings import ServiceSettings
from services.common.validation import Rules, RulesInterceptor

LIVENESS = "liveness"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Service:
    """What a composition root hands over to be served.

    ``names`` are full gRPC service names; ``register`` adds servicers; ``ready`` raises a BonafideError
    while the service must not get traffic; ``close`` lets go of collaborators after the last call.
    """

    title: str
    names: Sequence[str]
    register: Callable[[grpc.aio.Server], None]
    ready: Check
    close: Sequence[Check] = ()


def models_ready(
    repository: ModelRepository,
    engine: InferenceEngine,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
) -> Check:
    """A readiness check: every model is trained and unaltered, and the engine has it loaded."""

    async def check() -> None:
        cards = await asyncio.to_thread(repository.verify_all, required, optional)
        if isinstance(engine, TritonEngine):
            for name in cards:
                if not await engine.ready(name):
                    raise BonafideError(f"the inference server does not serve {name}", reason="MODEL_NOT_LOADED")

    return check


class ServiceProcess:
    """Runs one Service until SIGTERM or SIGINT."""

    def __init__(self, service: Service, settings: ServiceSettings) -> None:
        self._service = service
        self._settings = settings
        self._health = health.aio.HealthServicer()
        self._state = ""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; returns after a graceful drain."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self.serve(stop)

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set; returns after a graceful drain."""
        size = self._settings.max_message_bytes
        server = grpc.aio.server(
            interceptors=[RulesInterceptor(Rules())],
            options=[
                ("grpc.max_receive_message_length", size),
                ("grpc.max_send_message_length", size),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._service.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [*self._service.names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, server)
        await self._health.set(LIVENESS, _SERVING)
        await self._set_ready(ready=False)
        port = server.add_insecure_port(self._settings.listen)
        await server.start()
        host = self._settings.listen.rpartition(":")[0]
        _log.info("%s listens on %s:%d", self._service.title, host, port)
        watch = asyncio.create_task(self._watch_readiness())
        await stop.wait()
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await self._health.enter_graceful_shutdown()
        await server.stop(self._settings.drain_seconds)
        for close in self._service.close:
            await close()
        _log.info("%s stopped", self._service.title)

    async def _watch_readiness(self) -> None:
        while True:
            try:
                await self._service.ready()
            except BonafideError as error:
                await self._set_ready(ready=False)
                self._note(f"not ready: {error.message}")
                pause = min(self._settings.readiness_interval_seconds, 0.5)
            except Exception:  # noqa: BLE001 - a broken check means not ready, not a dead watcher
                await self._set_ready(ready=False)
                _log.exception("the readiness check itself failed")
                pause = self._settings.readiness_interval_seconds
            else:
                await self._set_ready(ready=True)
                self._note("ready")
                pause = self._settings.readiness_interval_seconds
            await asyncio.sleep(pause)

    async def _set_ready(self, *, ready: bool) -> None:
        for name in ("", *self._service.names):
            await self._health.set(name, _SERVING if ready else _NOT_SERVING)

    def _note(self, state: str) -> None:
        if state != self._state:
            self._state = state
            _log.info("%s %s", self._service.title, state)


def run(service: Service, settings: ServiceSettings) -> None:
    """Log to stderr and serve until told to stop. The last line of every ``__main__``."""
    keep_freed_memory()
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Channels to other servers belong to the loop that was current when the composition made them.
    with asyncio.Runner(loop_factory=asyncio.get_event_loop) as runner:
        runner.run(ServiceProcess(service, settings).run())
