"""The networks of one clip, in the versions that it gets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from services.common.errors import BonafideError, DeadlineError, ModelNotDeployedError, UnavailableError
from services.common.evidence import ModelInfo
from services.common.inference import InferenceEngine, VersionedEngine
from services.common.models import ModelCard, ModelRepository

Array = npt.NDArray[Any]
LOGIT = "logit"
"""The output by which two versions are compared: calibrated log-odds, one an item of the batch."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ClipModels:
    """Where the networks of one clip run, and the cards of the versions that run.

    ``candidate`` names the model whose candidate answers this clip; it is empty for most clips.
    """

    engine: InferenceEngine
    repository: ModelRepository
    candidate: str = ""

    def info(self, card: ModelCard) -> ModelInfo:
        """A model that took part in this clip."""
        return ModelInfo(card.name, card.version, card.sha256, self.engine.kind, candidate=card.name == self.candidate)


Work = Callable[[ClipModels, float], Awaitable[Result]]
"""Scores one clip with some models within some seconds."""


class Models(Protocol):
    """Chooses the models of each clip."""

    def steady(self) -> ClipModels:
        """The stable versions, for what no trial changes."""
        ...

    async def answer(self, content: str, work: Work[Result], *, timeout: float) -> Result:
        """Score one clip.

        Args:
            content: hash of the clip's file; empty where it is not known.
            work: does it; may be called a second time with other models when the first ones failed.
            timeout: seconds for all of it.
        """
        ...


class FixedModels:
    """Every clip gets the versions of the root cards."""

    def __init__(self, engine: InferenceEngine, repository: ModelRepository) -> None:
        self._models = ClipModels(engine, repository)

    def steady(self) -> ClipModels:
        """See Models."""
        return self._models

    async def answer(self, content: str, work: Work[Result], *, timeout: float) -> Result:  # noqa: ARG002
        """See Models."""
        return await work(self._models, timeout)


@dataclass(frozen=True, slots=True)
class Call:
    """What a network was given and what it answered."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


class BoundEngine:
    """An InferenceEngine that runs the versions of one clip, and keeps what a comparison needs.

    Args:
        engine: holds all versions.
        repository: whose cards name the versions of this clip.
        candidate: the model on trial, whose calls are not tried again because the stable version stands by.
        seconds: time that one of its calls may take.
        watched: models whose calls are kept.
    """

    def __init__(
        self,
        engine: VersionedEngine,
        repository: ModelRepository,
        *,
        candidate: str = "",
        seconds: float = math.inf,
        watched: frozenset[str] = frozenset(),
    ) -> None:
        self.kind = engine.kind
        self._engine = engine
        self._repository = repository
        self._candidate = candidate
        self._seconds = seconds
        self._versions: dict[str, str] = {}
        self.failed: set[str] = set()
        self.calls: dict[str, list[Call]] = {name: [] for name in watched}

    async def infer(self, model: str, inputs: Mapping[str, Array], *, timeout: float) -> dict[str, Array]:
        """See InferenceEngine."""
        try:
            if model == self._candidate:
                outputs = await self._try(model, inputs, min(timeout, self._seconds))
            else:
                outputs = await self._engine.infer(model, inputs, timeout=timeout, version=self._version(model))
        except (BonafideError, asyncio.CancelledError):
            self.failed.add(model)
            raise
        if model in self.calls:
            self.calls[model].append(Call(inputs, outputs))
        return outputs

    async def _try(self, model: str, inputs: Mapping[str, Array], seconds: float) -> dict[str, Array]:
        """A call to the candidate, which must give a number, and in time."""
        try:
            async with asyncio.timeout(seconds):
                outputs = await self._engine.infer(
                    model, inputs, timeout=seconds, version=self._version(model), patient=False
                )
        except TimeoutError as error:
            raise DeadlineError(f"the candidate of {model} did not answer in time") from error
        logits_of(model, outputs)
        return outputs

    async def close(self) -> None:
        """See InferenceEngine; the engine behind it goes on."""

    def _version(self, model: str) -> str:
        if model not in self._versions:
            try:
                self._versions[model] = self._repository.card(model).version
            except ModelNotDeployedError:  # the engine says so better
                self._versions[model] = ""
        return self._versions[model]


def logits_of(model: str, outputs: Mapping[str, Array]) -> Array:
    """The log-odds among a model's outputs.

    Raises:
        UnavailableError: there are none, or they are not finite (MODEL_FAILED).
    """
    logits = outputs.get(LOGIT)
    if logits is None or not np.isfinite(logits).all():
        raise UnavailableError(f"model {model} gave no finite log-odds", reason="MODEL_FAILED")
    return logits
