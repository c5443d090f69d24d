"""Running networks: one interface, two engines over the same model repository.

``TritonEngine`` talks to NVIDIA Triton over gRPC; ``EmbeddedEngine`` runs the same ONNX files with ONNX
Runtime inside this process, for machines where Triton cannot run, for tests and for the benchmark's raw
loop.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from services.common.certificates import CertificateStore
from services.common.errors import BonafideError, DeadlineError, UnavailableError
from services.common.model_metrics import ModelMetrics
from services.common.models import ModelRepository
from services.common.quiet_onnxruntime import onnxruntime
from services.common.shared_tensors import SharedTensors
from services.common.tensor_passing import TensorPassing
from services.common.tracing import current_span, outgoing_if_kept
from services.common.triton_care import ModelCare, ServedModel
from services.common.triton_client import open_triton
from services.common.triton_failures import failure_of

Array = npt.NDArray[Any]
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 0.5
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A server that comes back is noticed within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Of several servers each engine takes one by chance, and another when that one ages the connection; not a new one
    # with every call, for what heals a model must reach the server that holds it.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": True}}]})),
]


class InferenceEngine(Protocol):
    """Runs a named model on a batch."""

    kind: str
    """``triton`` or ``embedded``."""

    async def infer(self, model: str, inputs: Mapping[str, Array], *, timeout: float) -> dict[str, Array]:
        """Run ``model`` on named arrays whose first axis is the batch; answers its named outputs.

        Args:
            model: directory name in the model repository.
            inputs: arrays with the names, dtypes and shapes of the model's config.
            timeout: seconds the call may take in all, retries included.

        Raises:
            DeadlineError: the time was used up.
            ModelNotDeployedError: there is no such model.
            ResourceExhaustedError: the model's queue is full.
            UnavailableError: the engine cannot be reached, or the model failed or is dead.
            BonafideError: the model does not take such inputs.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and sessions."""
        ...


class VersionedEngine(InferenceEngine, Protocol):
    """An engine that holds several versions of a model side by side."""

    async def infer(
        self, model: str, inputs: Mapping[str, Array], *, timeout: float, version: str = "", patient: bool = True
    ) -> dict[str, Array]:
        """As InferenceEngine.

        Args:
            model: directory name in the model repository.
            inputs: arrays with the names, dtypes and shapes of the model's config.
            timeout: seconds the call may take in all, retries included.
            version: which of its versions; empty leaves the choice to the engine.
            patient: whether what may pass is tried again, and a dead model reloaded.
        """
        ...

    async def check(self, models: Sequence[ServedModel], *, gently: bool = False) -> None:
        """Make sure that every model really answers.

        Args:
            models: which of them, in which version.
            gently: load what is not loaded, but reload nothing: that would take away the model's other versions.

        Raises:
            BonafideError: at least one model does not answer; says which and why.
        """
        ...


@dataclass(frozen=True, slots=True)
class TritonLimits:
    """How much is asked of Triton at once, and for how long.

    ``patience_seconds`` is how long a call keeps trying while the server restarts or a model is reloaded.
    ``shared_regions`` is the number of shared-memory regions, 0 for none; inputs from ``shared_from_bytes``
    on use them (``docs/triton-hop.md`` has what that saves).
    """

    calls_per_model: int = 16
    patience_seconds: float = 5.0
    probe_seconds: float = 5.0
    heal: bool = True
    shared_regions: int = 4
    shared_region_bytes: int = 8 << 20
    shared_from_bytes: int = 1 << 19


def counted_as(model: str, version: str, *, patient: bool) -> str:
    """The name under which a call is measured: what a trial asks for, without patience, is not the service's doing."""
    return model if patient else f"{model}/{version}"


class TritonEngine:
    """Unary gRPC to a Triton server: bounded calls a model, a deadline on each, patience with what passes.

    Everything that may pass in a moment (a restart, a roll-out, a full queue, a model being reloaded) is
    tried again for ``patience_seconds`` within the deadline; nothing else is.
    """

    kind = "triton"

    def __init__(
        self,
        address: str,
        *,
        certificates: CertificateStore | None = None,
        limits: TritonLimits | None = None,
        metrics: ModelMetrics | None = None,
    ) -> None:
        self._metrics = metrics or ModelMetrics.unscraped()
        self._limits = limits or TritonLimits()
        self._client = open_triton(address, _CHANNEL_OPTIONS, certificates)
        self._care = ModelCare(self._client, probe_seconds=self._limits.probe_seconds, heal=self._limits.heal)
        self._gates: dict[ServedModel, asyncio.Semaphore] = {}
        shared = None
        if self._limits.shared_regions:
            shared = SharedTensors(
                self._client, regions=self._limits.shared_regions, region_bytes=self._limits.shared_region_bytes
            )
        self._passing = TensorPassing(shared, from_bytes=self._limits.shared_from_bytes)

    @property
    def by_shared_memory(self) -> bool:
        """Whether large tensors go by shared memory now."""
        return self._passing.by_shared_memory

    async def infer(
        self, model: str, inputs: Mapping[str, Array], *, timeout: float, version: str = "", patient: bool = True
    ) -> dict[str, Array]:
        """See InferenceEngine. Without a version Triton takes the newest that it has loaded."""
        served = ServedModel(model, version)
        gate = self._gates.setdefault(served, asyncio.Semaphore(self._limits.calls_per_model))
        ends = time.monotonic() + timeout
        patience = self._limits.patience_seconds if patient else 0.0

        counted = counted_as(model, version, patient=patient)

        def attempt(tensors: list[Any]) -> Awaitable[dict[str, Array]]:
            return self._attempt(served, tensors, ends, patience, counted)

        with self._metrics.call(counted):
            try:
                async with asyncio.timeout(timeout), gate:
                    return await self._passing.run(inputs, attempt)
            except TimeoutError as error:
                raise DeadlineError(f"model {model} did not answer in time") from error

    async def _attempt(
        self, served: ServedModel, tensors: list[Any], ends: float, patience: float, counted: str
    ) -> dict[str, Array]:
        patient_until = min(ends, time.monotonic() + patience)
        pause = FIRST_PAUSE_SECONDS
        while True:
            left = max(ends - time.monotonic(), 1e-3)
            try:
                result = await self._client.infer(
                    served.name,
                    tensors,
                    model_version=served.version,
                    client_timeout=left,
                    headers=outgoing_if_kept(),
                )
            except InferenceServerException as raised:
                failure = failure_of(served.name, raised)
                self._metrics.rejected(counted, failure.error.reason)
                if failure.dead and patience:
                    self._care.heal(served, failure.error.reason)
                if not failure.passing or time.monotonic() + pause >= patient_until:
                    raise failure.error from raised
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads callers, no secret
                current_span().add_event("try again", {"bonafide.reason": failure.error.reason})
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self._care.answered(served)
                return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

    async def check(self, models: Sequence[ServedModel], *, gently: bool = False) -> None:
        """See VersionedEngine; what is dead is reloaded meanwhile."""
        await self._care.check(models, gently=gently)

    async def close(self) -> None:
        """See InferenceEngine."""
        await self._care.close()
        await self._passing.close()
        await self._client.close()


class EmbeddedEngine:
    """ONNX Runtime sessions in this process, made on first use, one thread each."""

    kind = "embedded"

    def __init__(self, repository: ModelRepository, *, threads: int = 1, metrics: ModelMetrics | None = None) -> None:
        self._metrics = metrics or ModelMetrics.unscraped()
        self._repository = repository
        self._threads = threads
        self._sessions: dict[tuple[str, str], onnxruntime.InferenceSession] = {}

    def run(
        self,
        model: str,
        inputs: Mapping[str, Array],
        options: onnxruntime.RunOptions | None = None,
        *,
        version: str = "",
    ) -> dict[str, Array]:
        """Run a model now, on the calling thread; for training, tests and the raw loop.

        Args:
            model: directory name in the model repository.
            inputs: named arrays.
            options: of this run; setting ``terminate`` on them ends it at the next operator.
            version: which of its versions; empty means that of the root card.

        Raises:
            ModelNotDeployedError: there is no such model.
            UnavailableError: the model failed on these inputs.
        """
        session = self._session(model, version)
        names = [output.name for output in session.get_outputs()]
        try:
            values = session.run(names, dict(inputs), options)
        except Exception as error:
            raise UnavailableError(f"model {model} failed", reason="MODEL_FAILED") from error
        return dict(zip(names, values, strict=True))

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        timeout: float,
        version: str = "",
        patient: bool = True,
    ) -> dict[str, Array]:
        """See InferenceEngine. A run that nobody waits for any more ends at its next operator."""
        options = onnxruntime.RunOptions()
        with self._metrics.call(counted_as(model, version, patient=patient)):
            try:
                async with asyncio.timeout(timeout):
                    return await asyncio.to_thread(self.run, model, inputs, options, version=version)
            except TimeoutError as error:
                raise DeadlineError(f"model {model} did not answer in time") from error
            finally:
                options.terminate = True

    async def check(
        self,
        models: Sequence[ServedModel],
        *,
        gently: bool = False,  # noqa: ARG002 - nothing is reloaded here
    ) -> None:
        """See VersionedEngine: each can be opened."""
        for model in models:
            try:
                await asyncio.to_thread(self._session, *model)
            except BonafideError:
                raise
            except Exception as error:
                raise UnavailableError(f"model {model.name} cannot be opened", reason="MODEL_FAILED") from error

    async def close(self) -> None:
        """See InferenceEngine."""
        self._sessions.clear()

    def _session(self, model: str, version: str) -> onnxruntime.InferenceSession:
        session = self._sessions.get((model, version))
        if session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
            repository = self._repository.at({model: version}) if version else self._repository
            path = repository.model_file(repository.verified(model))
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self._sessions[model, version] = session
        return session
