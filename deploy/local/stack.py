"""The whole system on one machine: Triton and the four services as processes on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local import triton
from deploy.local.identities import Identities
from deploy.local.processes import ManagedProcess, free_ports, port_is_free, stop_together
from deploy.local.supervision import Supervisor
from deploy.topology import COMPONENTS, TRITON, Component, wiring
from services.common.models import ModelRepository
from services.common.settings import EngineChoice, LogFormat

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = "gateway"
ROLLOUT_FILE = "rollout.json"
"""In the stack's run directory: versions on trial, read again when it changes."""
MODEL_SERVICES = tuple(component.name for component in COMPONENTS if component.name != GATEWAY)
_PAUSE_SECONDS = 0.05
_NOT_READY = "not ready: "  # how services.common.server logs why
_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
]


class StackError(Exception):
    """The stack cannot run; the sentence says why."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How to run the stack.

    ``gateway_port`` 0 picks a free one. ``start_seconds`` bounds the whole start; a service that answers
    but is not ready ``patience_seconds`` after everything it depends on is taken as refusing to serve.
    ``environment`` is added to every process, and ``own_environment`` to the process of that name, where it wins
    over what the stack itself would set. ``secure`` puts mutual TLS on every hop, with certificates under
    ``run_directory``. ``gateways`` run side by side; the others are named gateway-2 and so on.
    Spans of the services go to ``otlp_endpoint`` (gRPC), Triton's to ``otlp_http_url``.
    """

    gateway_port: int = 0
    gateways: int = 1
    secure: bool = False
    engine: EngineChoice = EngineChoice.AUTO
    repository: Path = ROOT / "model_repository"
    run_directory: Path = ROOT / ".run"
    triton_environment: Path = ROOT / ".venv-triton"
    environment: Mapping[str, str] = field(default_factory=dict)
    own_environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    otlp_endpoint: str = ""
    otlp_http_url: str = ""
    start_seconds: float = 90.0
    patience_seconds: float = 8.0
    grace_seconds: float = 8.0


class Stack:
    """Starts every process, waits until each is ready, and stops all of them; a context manager.

    Start it from a thread that lives as long as the stack: the processes die with that thread. ``say``
    receives one line for each process as it becomes ready. ``addresses`` and ``metrics`` are HOST:PORT by name of
    where a process is called and where its metrics are scraped.
    """

    def __init__(self, options: StackOptions, say: Callable[[str], None] = print) -> None:
        self._options = options
        self._say = say
        self._processes: dict[str, ManagedProcess] = {}
        self._supervisor = Supervisor(self._processes, self._tidy)
        self._began = 0.0
        self._probes: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.metrics: dict[str, str] = {}
        self.identities: Identities | None = None
        self.engine = EngineChoice.EMBEDDED

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def gateway(self) -> str:
        """HOST:PORT of the public API."""
        return self.addresses[GATEWAY]

    @property
    def rollout_file(self) -> Path:
        """What is on trial; need not exist."""
        return self._options.run_directory.absolute() / ROLLOUT_FILE

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def start(self) -> None:
        """Start everything and return when the gateway is ready.

        Raises:
            StackError: a process ended, refuses to serve, or took too long; nothing is left running.
        """
        port = self._options.gateway_port
        if port and not port_is_free(port):
            raise StackError(f"127.0.0.1:{port} is taken: is another stack running?")
        self._began = time.monotonic()
        try:
            self._launch()
            for name in self._processes:
                self._await_ready(name)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything, the gateway first, and remove shared memory."""
        layers = [self._gateways(), MODEL_SERVICES, [TRITON]]
        try:
            for layer in layers:
                present = [self._processes[name] for name in layer if name in self._processes]
                stop_together(present, self._options.grace_seconds)
        finally:
            for process in self._processes.values():
                process.kill()
            self._processes.clear()
            triton.remove_shared_memory(os.getpid())

    def ended(self) -> str | None:
        """Why the stack no longer runs whole, or None while it does."""
        for name, process in self._processes.items():
            if process.exit_code is not None:
                return f"{name} ended with code {process.exit_code}: {process.last_line()} (log: {process.log})"
        return None

    def tend(self) -> list[str]:
        """Start again what has ended, after a pause, and renew certificates; answers a line for each start or end.

        Call it often, from one thread.
        """
        if self.identities is not None:
            self.identities.renew_if_due()
        return self._supervisor.tend()

    def _tidy(self, name: str) -> None:
        if name == TRITON:
            self._processes[name].kill()  # its stubs too, which still hold the shared memory
            triton.remove_shared_memory(os.getpid())

    def _gateways(self) -> list[str]:
        return [GATEWAY, *(f"{GATEWAY}-{number}" for number in range(2, self._options.gateways + 1))]

    def _launch(self) -> None:
        gateways = self._gateways()
        names = [*MODEL_SERVICES, *gateways]
        triton_port, triton_metrics_port, *others = free_ports(2 + len(names) * 3)
        ports = [f"127.0.0.1:{port}" for port in others]
        self._probes = {name: ports.pop() for name in names} if self._options.secure else {}
        self.metrics = {name: ports.pop() for name in names}
        self.addresses = {name: ports.pop() for name in names}
        if self._options.gateway_port:
            self.addresses[GATEWAY] = f"127.0.0.1:{self._options.gateway_port}"
        if self._options.secure:
            self.identities = Identities(self._options.run_directory / "certificates", COMPONENTS)
        self.engine = self._launch_triton(triton_port, triton_metrics_port)
        for component in COMPONENTS:
            for name in gateways if component.name == GATEWAY else [component.name]:
                self._launch_service(component, name)

    def _launch_triton(self, grpc_port: int, metrics_port: int) -> EngineChoice:
        options = self._options
        if options.engine is EngineChoice.EMBEDDED:
            return EngineChoice.EMBEDDED
        try:
            installation = triton.find_installation(options.triton_environment)
        except triton.TritonUnavailableError as error:
            if options.engine is EngineChoice.TRITON:
                raise StackError(str(error)) from error
            self._say(f"{TRITON:8} not here: {error}; the services run the models themselves")
            return EngineChoice.EMBEDDED
        models, refused = triton.loadable_models(ModelRepository(options.repository))
        for reason in refused.values():
            self._say(f"{TRITON:8} leaves out a model: {reason}")
        plan = triton.TritonPlan(
            installation=installation,
            repository=options.repository,
            models=models,
            backends=triton.assemble_backends(installation, options.run_directory),
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            shared_memory_prefix=triton.shared_memory_prefix(os.getpid()),
            tls=self.identities.files(TRITON) if self.identities else None,
            otlp_url=options.otlp_http_url,
        )
        self._launch_process(TRITON, plan.command(), plan.environment())
        self.addresses[TRITON], self.metrics[TRITON] = f"127.0.0.1:{grpc_port}", f"127.0.0.1:{metrics_port}"
        return EngineChoice.TRITON

    def _launch_service(self, component: Component, name: str) -> None:
        models = PurePosixPath(self._options.repository)
        environment = wiring(component, self.addresses.__getitem__, self.addresses[name], models, self.engine)
        environment[f"{component.prefix}METRICS_LISTEN"] = self.metrics[name]
        environment[f"{component.prefix}ROLLOUT_FILE"] = str(self.rollout_file)
        environment[f"{component.prefix}DRAIN_NOTICE_SECONDS"] = "0"  # the stack stops callers before those they call
        environment[f"{component.prefix}LOG_FORMAT"] = LogFormat.TEXT.value
        environment[f"{component.prefix}OTLP_ENDPOINT"] = self._options.otlp_endpoint
        if self.identities is not None:
            environment |= self.identities.environment(component)
            environment[f"{component.prefix}HEALTH_LISTEN"] = self._probes[name]
        self._launch_process(name, [sys.executable, "-P", "-m", f"services.{component.name}"], environment)

    def _launch_process(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        log = self._options.run_directory / "logs" / f"{name}.log"
        own = self._options.own_environment.get(name, {})
        self._processes[name] = ManagedProcess(name, command, {**self._options.environment, **environment, **own}, log)

    def _await_ready(self, name: str) -> None:
        """Wait for SERVING; everything that ``name`` depends on is ready already."""
        process = self._processes[name]
        answered_since: float | None = None
        with self._probe_channel(name) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                status = _health(stub)
                now = time.monotonic()
                if status == health_pb2.HealthCheckResponse.SERVING:
                    break
                if status is not None:
                    answered_since = answered_since or now
                self._raise_if_hopeless(process, answered_since, now)
                time.sleep(_PAUSE_SECONDS)
        seconds = time.monotonic() - self._began
        self._say(f"{name:8} ready on {self.addresses[name]} after {seconds:.1f} s")

    def _probe_channel(self, name: str) -> grpc.Channel:
        if name == TRITON and self.identities is not None:  # it has no port for probes
            credentials = self.identities.channel_credentials()
            return grpc.secure_channel(self.addresses[name], credentials, options=_CHANNEL_OPTIONS)
        return grpc.insecure_channel(self._probe_address(name), options=_CHANNEL_OPTIONS)

    def _probe_address(self, name: str) -> str:
        """Where health is asked in plain text: the port for probes where a process has one."""
        own = self._options.own_environment.get(name, {})
        probes = (value for variable, value in own.items() if variable.endswith("_HEALTH_LISTEN"))
        return next(probes, self._probes.get(name, self.addresses[name]))

    def _raise_if_hopeless(self, process: ManagedProcess, answered_since: float | None, now: float) -> None:
        if process.exit_code is not None:
            what = f"ended with code {process.exit_code}"
        elif answered_since is not None and now - answered_since > self._options.patience_seconds:
            what = "refuses to serve"
        elif now - self._began > self._options.start_seconds:
            what = "was not ready in time"
        else:
            return
        reason = process.last_line(_NOT_READY).partition(_NOT_READY)[2] or process.last_line()
        raise StackError(f"{process.name} {what}: {reason} (log: {process.log})")


def _health(stub: Any) -> int | None:  # noqa: ANN401 - grpc_health is untyped
    """The health status, or None when the server does not answer yet."""
    try:
        return int(stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0).status)
    except grpc.RpcError:
        return None


@contextlib.contextmanager
def stop_signals_raise() -> Iterator[None]:
    """Within the block SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt; main thread only.

    SIGINT too, because a shell that starts a program in the background has it ignored.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
