"""Knowing that models answer, and bringing back those that do not.

Triton calls a model ready whose process was killed or hangs, so readiness runs a tiny inference. Unloading
and loading such a model gives it a new process within seconds (measured: 1.8 s and 2.2 s after SIGSTOP and
SIGKILL); loading alone changes nothing. It is the model that is unloaded, with all of its versions: one that is
merely not loaded is loaded, which leaves the others alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as triton
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from services.common.errors import BonafideError, DeadlineError, ModelNotDeployedError, UnavailableError
from services.common.media import SAMPLE_RATE
from services.common.triton_failures import failure_of

Array = npt.NDArray[Any]
FREE_SIZE = 64
"""Size given to an axis that a model leaves open."""

HEALING_PAUSE_SECONDS = 30.0
"""From one reload of a model to the next."""

_NOT_LOADED = "MODEL_NOT_LOADED"
_HEALED_BY_RELOAD = {"MODEL_DEAD", "MODEL_HUNG", "MODEL_FAILED"}
_ASKING_SECONDS = 2.0
_LOADING_SECONDS = 60.0
_CLOSING_SECONDS = 3.0
_log = logging.getLogger(__name__)


class ServedModel(NamedTuple):
    """A model in one of its versions; without one, in the newest that is loaded."""

    name: str
    version: str = ""


def synthetic_inputs(config: Any) -> dict[str, Array]:  # noqa: ANN401 - tritonclient is untyped
    """The smallest inputs that a model takes, all zero: one item, FREE_SIZE where an axis is open.

    An input of one open axis is sound, and gets a second of it.
    """
    made = {}
    for tensor in config.input:
        free = SAMPLE_RATE if list(tensor.dims) == [-1] else FREE_SIZE
        shape = [size if size > 0 else free for size in tensor.dims]
        name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
        kind = triton_to_np_dtype("BYTES" if name == "STRING" else name)
        made[tensor.name] = np.zeros([1, *shape] if config.max_batch_size > 0 else shape, kind)
    return made


def read_config(file: Path) -> Any:  # noqa: ANN401
    """A model's ``config.pbtxt`` as Triton's own message."""
    return text_format.Parse(file.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


def tensors_of(inputs: Mapping[str, Array]) -> list[Any]:
    """Arrays as Triton's client takes them."""
    tensors = []
    for name, values in inputs.items():
        tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(values))
        tensors.append(tensor)
    return tensors


class ModelCare:
    """Probes models and reloads those that are dead.

    Args:
        client: connection to Triton.
        probe_seconds: time a tiny inference may take.
        heal: whether to unload and load a model that does not answer.
    """

    def __init__(self, client: Any, *, probe_seconds: float, heal: bool) -> None:  # noqa: ANN401
        self._client = client
        self._probe_seconds = probe_seconds
        self._heal = heal
        self._answers: Counter[ServedModel] = Counter()
        self._answers_at_probe: dict[ServedModel, int] = {}
        self._inputs: dict[str, list[Any]] = {}
        self._healing: dict[str, asyncio.Task[None]] = {}
        self._healed_at: dict[ServedModel, float] = {}

    def answered(self, model: ServedModel) -> None:
        """Note that a model has answered a call, which spares its next probe."""
        self._answers[model] += 1

    async def check(self, models: Sequence[ServedModel], *, gently: bool = False) -> None:
        """Make sure that every model answers; a reload of those that do not begins by itself.

        Args:
            models: which of them.
            gently: load what is not loaded, but reload nothing.

        Raises:
            BonafideError: at least one does not; says which and why.
        """
        results = await asyncio.gather(*(self._probe(model) for model in models), return_exceptions=True)
        problems = []
        for model, result in zip(models, results, strict=True):
            if isinstance(result, BonafideError):
                problems.append(result)
                self.heal(model, result.reason, gently=gently)
            elif isinstance(result, BaseException):
                raise result
        if problems:
            raise BonafideError("; ".join(dict.fromkeys(each.message for each in problems)), reason=problems[0].reason)

    def heal(self, model: ServedModel, reason: str, *, gently: bool = False) -> None:
        """Begin to reload a model in the background, unless it was tried a moment ago or may not be."""
        healed = reason == _NOT_LOADED or (reason in _HEALED_BY_RELOAD and not gently)
        busy = model.name in self._healing
        recent = time.monotonic() - self._healed_at.get(model, -HEALING_PAUSE_SECONDS) < HEALING_PAUSE_SECONDS
        if self._heal and healed and not busy and not recent:
            task = asyncio.ensure_future(self._reload(model, reason))
            self._healing[model.name] = task
            task.add_done_callback(lambda _: self._healing.pop(model.name, None))

    async def close(self) -> None:
        """Leave no reload half done, if it ends soon; whoever checks next would begin it anew."""
        if self._healing:
            _, late = await asyncio.wait(self._healing.values(), timeout=_CLOSING_SECONDS)
            for task in late:
                task.cancel()

    async def _probe(self, model: ServedModel) -> None:
        answers = self._answers[model]
        if answers != self._answers_at_probe.get(model, 0):  # real calls prove more than a tiny one
            self._answers_at_probe[model] = answers
            return
        try:
            async with asyncio.timeout(self._probe_seconds):
                if model.name not in self._inputs:
                    self._inputs[model.name] = await self._smallest_inputs(model.name)
                await self._client.infer(
                    model.name,
                    self._inputs[model.name],
                    model_version=model.version,
                    client_timeout=self._probe_seconds,
                )
        except InferenceServerException as raised:
            error = failure_of(model.name, raised).error
        except TimeoutError:
            error = DeadlineError("")
        else:
            return
        if isinstance(error, ModelNotDeployedError):
            raise UnavailableError(f"model {model.name} is not loaded", reason="MODEL_NOT_LOADED")
        if not isinstance(error, DeadlineError):
            raise error
        if self._answers[model] == answers:  # otherwise it is only busy
            raise await self._silence(model.name)

    async def _silence(self, model: str) -> BonafideError:
        """Whether it is the model or the whole server that does not answer."""
        try:
            await self._client.is_server_live(client_timeout=_ASKING_SECONDS)
        except (InferenceServerException, grpc.RpcError):
            return UnavailableError("the inference server does not answer", reason="INFERENCE_UNREACHABLE")
        return UnavailableError(f"model {model} hangs", reason="MODEL_HUNG")

    async def _smallest_inputs(self, model: str) -> list[Any]:
        answer = await self._client.get_model_config(model, client_timeout=self._probe_seconds)
        return tensors_of(synthetic_inputs(answer.config))

    async def _reload(self, model: ServedModel, reason: str) -> None:
        self._healed_at[model] = time.monotonic()
        self._inputs.pop(model.name, None)
        if reason == _NOT_LOADED:
            _log.info("loading model %s", "/".join(filter(None, model)))
        else:
            _log.warning("reloading model %s (%s)", model.name, reason)
            with contextlib.suppress(InferenceServerException):
                await self._client.unload_model(model.name, client_timeout=_ASKING_SECONDS)
        try:
            await self._client.load_model(model.name, client_timeout=_LOADING_SECONDS)
        except (InferenceServerException, grpc.RpcError) as error:
            _log.warning("model %s could not be loaded: %s", model.name, error)
        else:
            _log.info("model %s is loaded", model.name)
