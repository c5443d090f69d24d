"""Running networks: one interface, two engines over the same model repository.

``TritonEngine`` talks to NVIDIA Triton over gRPC; ``EmbeddedEngine`` runs the same ONNX files with ONNX
Runtime inside this process, for machines where Triton cannot run, for tests and for the benchmark's raw
loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

import grpc
import numpy as np
import numpy.typing as npt
import onnxruntime
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from services.common.certificates import Certificates
from services.common.errors import DeadlineError, ModelNotDeployedError, UnavailableError
from services.common.models import ModelRepository

Array = npt.NDArray[Any]
RETRY_PAUSE_SECONDS = 0.05


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
            UnavailableError: the engine cannot be reached or the model failed.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and sessions."""
        ...


class TritonEngine:
    """Unary gRPC to a Triton server, with a deadline on every call.

    UNAVAILABLE, and NOT_FOUND "no available versions" (a server that is draining or rolling out), are
    tried again within the deadline; nothing else is.
    """

    kind = "triton"

    def __init__(self, address: str, *, certificates: Certificates | None = None) -> None:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        credentials = None
        if certificates is not None:
            credentials = grpc.ssl_channel_credentials(certificates.authorities, certificates.key, certificates.chain)
        self._client = triton.InferenceServerClient(url=address, channel_args=options, creds=credentials)

    async def infer(self, model: str, inputs: Mapping[str, Array], *, timeout: float) -> dict[str, Array]:
        """See InferenceEngine."""
        tensors = []
        for name, values in inputs.items():
            tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(values))
            tensors.append(tensor)
        ends = time.monotonic() + timeout
        while True:
            remaining = ends - time.monotonic()
            if remaining <= 0:
                raise DeadlineError(f"model {model} did not answer in time")
            try:
                result = await self._client.infer(model, tensors, client_timeout=remaining)
            except InferenceServerException as error:
                self._raise_unless_retryable(model, error)
                await asyncio.sleep(min(RETRY_PAUSE_SECONDS, max(ends - time.monotonic(), 0)))
            else:
                outputs = result.get_response().outputs
                return {output.name: result.as_numpy(output.name) for output in outputs}

    @staticmethod
    def _raise_unless_retryable(model: str, error: InferenceServerException) -> None:
        status, text = str(error.status() or ""), str(error.message())
        if status.endswith("DEADLINE_EXCEEDED"):
            raise DeadlineError(f"model {model} did not answer in time") from error
        if status.endswith("UNAVAILABLE") or "no available versions" in text:
            return
        if status.endswith("NOT_FOUND"):
            raise ModelNotDeployedError(f"the inference server has no model named {model}") from error
        raise UnavailableError(f"model {model} failed", reason="MODEL_FAILED") from error

    async def ready(self, model: str, *, timeout: float = 2.0) -> bool:
        """Whether the server says that the model is loaded; False when it cannot be asked."""
        try:
            return bool(await self._client.is_model_ready(model, client_timeout=timeout))
        except (InferenceServerException, grpc.RpcError):
            return False

    async def close(self) -> None:
        """See InferenceEngine."""
        await self._client.close()


class EmbeddedEngine:
    """ONNX Runtime sessions in this process, made on first use, one thread each."""

    kind = "embedded"

    def __init__(self, repository: ModelRepository, *, threads: int = 1) -> None:
        self._repository = repository
        self._threads = threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, model: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a model now, on the calling thread; for training, tests and the raw loop.

        Raises:
            ModelNotDeployedError: there is no such model.
            UnavailableError: the model failed on these inputs.
        """
        session = self._session(model)
        names = [output.name for output in session.get_outputs()]
        try:
            values = session.run(names, dict(inputs))
        except Exception as error:
            raise UnavailableError(f"model {model} failed", reason="MODEL_FAILED") from error
        return dict(zip(names, values, strict=True))

    async def infer(self, model: str, inputs: Mapping[str, Array], *, timeout: float) -> dict[str, Array]:
        """See InferenceEngine. A run that has begun cannot be stopped; its result is dropped."""
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.to_thread(self.run, model, inputs)
        except TimeoutError as error:
            raise DeadlineError(f"model {model} did not answer in time") from error

    async def close(self) -> None:
        """See InferenceEngine."""
        self._sessions.clear()

    def _session(self, model: str) -> onnxruntime.InferenceSession:
        session = self._sessions.get(model)
        if session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
            path = self._repository.model_file(self._repository.verified(model))
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self._sessions[model] = session
        return session
