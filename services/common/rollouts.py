"""Rolling models out: the stable version answers, and candidates prove themselves on a share of the clips.

A *shadow* candidate is given what the stable version was given, after the answer, one comparison at a time; when
one is under way the next is left out, so that a candidate costs no more than one call under way and delays
nothing. A *canary* candidate answers its share of the clips; where it fails or takes too long the stable version
answers within the same request. Either way the trial ends by itself when a budget is overdrawn.

A new plan is in force once every version that it calls stable answers; until then the last one stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from services.common.clip_models import LOGIT, BoundEngine, Call, ClipModels, Result, Work, logits_of
from services.common.errors import BonafideError, ModelRepositoryError, ResourceExhaustedError, UnavailableError
from services.common.inference import VersionedEngine
from services.common.model_metrics import ModelMetrics
from services.common.models import HEADS, ModelCard, ModelRepository, fits
from services.common.rollout_plan import Mode, RolloutFile, RolloutPlan
from services.common.telemetry import Telemetry
from services.common.trial import Trial, TrialState
from services.common.triton_care import ServedModel, read_config

Deployed = Callable[[ModelRepository], Mapping[str, ModelCard]]
"""Verified cards of all that a service runs from a repository; raises a BonafideError when it must not."""

CANDIDATES_SHARE_OF_TIME = 0.5
"""A candidate never takes more of a request's time than this: the rest is for the stable version."""
_log = logging.getLogger(__name__)


class Rollouts:
    """Chooses the versions of each clip for one service; lives on one event loop.

    Args:
        engine: runs all versions.
        repository: holds them.
        file: the rollout file.
        deployed: says what this service runs.
        metrics: is told which models are at work.
        telemetry: is told how candidates do.
    """

    def __init__(
        self,
        engine: VersionedEngine,
        repository: ModelRepository,
        file: RolloutFile,
        deployed: Deployed,
        metrics: ModelMetrics,
        telemetry: Telemetry,
    ) -> None:
        self._metrics = metrics
        self._telemetry = telemetry
        self._engine = engine
        self._repository = repository
        self._file = file
        self._deployed = deployed
        self._plan: RolloutPlan | None = None
        self._trials: dict[str, Trial] = {}
        self._comparing: asyncio.Task[None] | None = None
        self._cards: Mapping[str, ModelCard] = {}
        self.stable = repository
        self.problem = ""

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The candidates of this service's models."""
        return tuple(self._trials.values())

    async def ready(self) -> None:
        """Look at the rollout file, the cards and the engine, and put into force what can be.

        Raises:
            BonafideError: not even the plan in force can be served, or there is none yet.
        """
        plan, problem = await self._wanted()
        known = self._plan
        if known is not None and plan.stable != known.stable:
            try:
                await self._check_stable(plan, gently=True)
            except BonafideError as error:
                plan, problem = known, error.message
        if known is None or plan.stable == known.stable:
            await self._check_stable(plan)
        self._report(problem)
        self._put_into_force(plan)
        for trial in self.trials:
            await self._check_trial(trial)
        self._metrics.at_work([*self._cards.values(), *self._on_trial()])

    def steady(self) -> ClipModels:
        """See Models."""
        return ClipModels(BoundEngine(self._engine, self.stable), self.stable)

    async def answer(self, content: str, work: Work[Result], *, timeout: float) -> Result:
        """See Models; a candidate that fails or is late costs this clip time and nothing else."""
        began = time.monotonic()
        canary = self._canary(content)
        if canary is not None and canary.model == HEADS:
            canary = None
        blamed = False
        if canary is not None:
            candidate = self._candidate_engine(canary)
            found = await _tried(work, ClipModels(candidate, canary.repository, canary.model), candidate, timeout)
            if found is not None:
                self._heard(canary, candidate)
                return found[0]
            blamed = canary.model in candidate.failed
        shadows = [each for each in self.trials if each.model != HEADS and each.watches(content)]
        engine = BoundEngine(self._engine, self.stable, watched=frozenset(each.model for each in shadows))
        result = await work(ClipModels(engine, self.stable), timeout - (time.monotonic() - began))
        if canary is not None and blamed and canary.model not in engine.failed:
            canary.note_failure()
        for shadow in shadows:
            self._compare(shadow, engine.calls[shadow.model])
        return result

    def _candidate_engine(self, trial: Trial) -> BoundEngine:
        return BoundEngine(
            self._engine,
            trial.repository,
            candidate=trial.model,
            seconds=trial.candidate.budgets.seconds,
            watched=frozenset({trial.model}),
        )

    def _heard(self, trial: Trial, engine: BoundEngine) -> None:
        """A candidate's answer stands; it may have had no part in the clip."""
        calls = engine.calls[trial.model]
        if calls:
            trial.note_success()
        self._compare(trial, calls)

    def heads_on_trial(self, content: str) -> Trial | None:
        """The trial of fusion heads that a clip meets, whatever its candidate may do."""
        trial = self._trials.get(HEADS)
        if trial is None or not content:
            return None
        return trial if trial is self._canary(content) or trial.watches(content) else None

    async def close(self) -> None:
        """End a comparison that is under way."""
        if self._comparing is not None:
            self._comparing.cancel()
            await asyncio.gather(self._comparing, return_exceptions=True)

    def _canary(self, content: str) -> Trial | None:
        if self._plan is None or not content:
            return None
        trial = self._trials.get(self._plan.canary_of(content))
        return trial if trial is not None and trial.share else None

    async def _wanted(self) -> tuple[RolloutPlan, str]:
        """The plan of the file; while that is invalid, the one in force and what is wrong."""
        try:
            return await asyncio.to_thread(self._file.read), ""
        except ModelRepositoryError as error:
            if self._plan is None:
                raise
            return self._plan, error.message

    def _put_into_force(self, plan: RolloutPlan) -> None:
        if plan == self._plan:
            return
        self.stable = self._repository.at(plan.stable)
        same = self._plan is not None and self._plan.stable == plan.stable
        before = self.trials
        self._trials = {
            name: known
            if same and (known := self._trials.get(name)) is not None and known.candidate == candidate
            else Trial(name, candidate, self.stable.at({name: candidate.version}), self._telemetry)
            for name, candidate in plan.candidates.items()
        }
        for trial in before:
            if trial is not self._trials.get(trial.model):
                trial.end()
        if self._plan is not None:
            _log.info("a new plan is in force: stable %s, on trial %s", plan.stable or "as the cards say", self.trials)
        self._plan = plan

    async def _check_stable(self, plan: RolloutPlan, *, gently: bool = False) -> None:
        view = self._repository.at(plan.stable)
        cards = await asyncio.to_thread(self._deployed, view)
        if plan.stable:
            await asyncio.to_thread(_require_heads, view, self._repository)
        await self._engine.check(_served(cards), gently=gently)
        self._cards = cards

    async def _check_trial(self, trial: Trial) -> None:
        """Let a candidate take part if it can and may."""
        if trial.state is TrialState.ROLLED_BACK:
            return
        try:
            cards = await asyncio.to_thread(self._deployed, trial.repository)
            if trial.model not in cards:  # another service runs it
                del self._trials[trial.model]
                return
            await asyncio.to_thread(_admit, trial)
            await self._engine.check(_served({trial.model: cards[trial.model]}), gently=True)
        except BonafideError as error:
            trial.wait(error.reason)
        else:
            trial.run()

    def _on_trial(self) -> list[ModelCard]:
        """Cards of the networks whose trial goes on."""
        running = [each for each in self.trials if each.state is TrialState.RUNNING and each.model != HEADS]
        return [each.repository.card(each.model) for each in running]

    def _report(self, problem: str) -> None:
        if problem and problem != self.problem:
            _log.error("the rollout file is not in force, and what was stays: %s", problem)
        self.problem = problem

    def _compare(self, trial: Trial, calls: Sequence[Call]) -> None:
        """Begin to compare both versions on a clip, unless another comparison is under way."""
        if not calls:
            return
        if self._comparing is not None and not self._comparing.done():
            trial.drop()
            return
        self._comparing = asyncio.create_task(self._compared(trial, calls))

    async def _compared(self, trial: Trial, calls: Sequence[Call]) -> None:
        shadow = trial.candidate.mode is Mode.SHADOW
        seconds = trial.candidate.budgets.seconds
        try:
            async with asyncio.timeout(seconds):
                difference = await self._difference(trial, calls, seconds)
        except ResourceExhaustedError:
            trial.drop()
        except (BonafideError, TimeoutError) as error:
            _log.info("%s was not compared on a clip: %r", trial, error)
            if shadow:
                trial.note_failure()
            else:
                trial.drop()
        else:
            if shadow:
                trial.note_success()
            trial.note_difference(difference)

    async def _difference(self, trial: Trial, calls: Sequence[Call], seconds: float) -> float:
        """Mean absolute difference of the probabilities that the two versions give to what a clip showed.

        Raises:
            BonafideError: the version that did not answer the clip fails, is late, or gives something else.
        """
        shadow = trial.candidate.mode is Mode.SHADOW
        view = trial.repository if shadow else self.stable
        ends = time.monotonic() + seconds
        differences = []
        for call in calls:
            outputs = await self._engine.infer(
                trial.model,
                call.inputs,
                timeout=max(ends - time.monotonic(), 1e-3),
                version=view.card(trial.model).version,
                patient=False,
            )
            one, other = logits_of(trial.model, call.outputs), logits_of(trial.model, outputs)
            if one.shape != other.shape:
                raise UnavailableError(f"model {trial.model} gave another number of log-odds", reason="MODEL_FAILED")
            differences.append(np.abs(sigmoid(one) - sigmoid(other)).ravel())
        return float(np.concatenate(differences).mean())


async def _tried(work: Work[Result], models: ClipModels, engine: BoundEngine, timeout: float) -> tuple[Result] | None:
    """What a candidate makes of a clip; None when the stable version has to answer it."""
    allowed = CANDIDATES_SHARE_OF_TIME * timeout
    try:
        async with asyncio.timeout(allowed):
            result = await work(models, allowed)
    except TimeoutError:
        return None  # the engine knows whether the candidate was what took so long
    except Exception as error:  # noqa: BLE001 - whatever a candidate does, the stable version answers
        _log.info("the candidate of %s failed on a clip, which the stable version answers: %r", models.candidate, error)
        engine.failed.add(models.candidate)
        return None
    return None if models.candidate in engine.failed else (result,)


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Probability of natural log-odds, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64))), np.float64)


def _served(cards: Mapping[str, ModelCard]) -> list[ServedModel]:
    return [ServedModel(name, card.version) for name, card in cards.items() if name != HEADS]


def _admit(trial: Trial) -> None:
    """Whether the rules let a candidate take part.

    Raises:
        ModelRepositoryError: it has no log-odds to compare (ROLLOUT_NOT_COMPARABLE), or its scores would reach
            fusion heads that were fitted on others (ROLLOUT_WITHOUT_HEADS).
    """
    view = trial.repository
    if trial.model == HEADS:
        if fits(_fitted_on(view.verified(HEADS)), view.contents()):
            raise _without_heads(trial.model)
        return
    config = read_config(view.root / trial.model / "config.pbtxt")
    if not any(output.name == LOGIT for output in config.output):
        raise ModelRepositoryError(f"{trial.model} gives no log-odds to compare", reason="ROLLOUT_NOT_COMPARABLE")
    if trial.candidate.mode is Mode.CANARY:
        require_heads(view)


def _require_heads(view: ModelRepository, shipped: ModelRepository) -> None:
    """Heads for the models that a plan calls stable; those at their root cards have the shipped ones."""
    if view.contents() != shipped.contents():
        require_heads(view)


def require_heads(view: ModelRepository) -> None:
    """Make sure that a staged set of fusion heads was fitted on the models of a repository.

    Raises:
        ModelRepositoryError: there is none (ROLLOUT_WITHOUT_HEADS), or a card cannot be read.
    """
    served = view.contents()
    staged = (view.at({HEADS: version}).card(HEADS) for version in view.staged(HEADS))
    if all(fits(_fitted_on(card), served) for card in staged):
        raise _without_heads("these models")


def _fitted_on(card: ModelCard) -> dict[str, str]:
    return {str(name): str(digest) for name, digest in dict(card.details.get("models", {})).items()}


def _without_heads(what: str) -> ModelRepositoryError:
    return ModelRepositoryError(f"no staged fusion heads were fitted on {what}", reason="ROLLOUT_WITHOUT_HEADS")
