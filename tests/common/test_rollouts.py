"""Candidates are compared, heard and taken back; the stable version always answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.common.clip_models import ClipModels
from services.common.errors import BonafideError, ModelRepositoryError
from services.common.inference import EmbeddedEngine
from services.common.model_metrics import ModelMetrics
from services.common.models import ModelCard, ModelRepository
from services.common.rollout_plan import RolloutFile
from services.common.rollouts import Rollouts
from services.common.telemetry import Telemetry
from services.common.trial import Trial, TrialState
from tests.common import versions
from tests.common.versions import MODEL, candidate, scorer, write_heads_card, write_plan, write_version

INPUTS = {"x": np.array([[1.0, 1.0], [0.5, 0.5]], np.float32)}
CLIPS = [f"{number:064x}" for number in range(100)]
STABLE, OTHER = 1.0, 1.05


class SlowSecond(EmbeddedEngine):
    """An engine whose version 2 never answers."""

    async def infer(self, model: str, inputs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        if options.get("version") == "2":
            await asyncio.sleep(options["timeout"] + 60)
        return await super().infer(model, inputs, **options)


class Room:
    """A repository, its rollout file and a service's rollouts over them."""

    def __init__(self, root: Path, engine: type[EmbeddedEngine] = EmbeddedEngine) -> None:
        self.root, self.file = root / "models", root / "rollout.json"
        self.repository = versions.repository(self.root)
        self.engine = engine(self.repository)
        self.telemetry = Telemetry("visual")
        self.rollouts = self.fresh()

    def fresh(self) -> Rollouts:
        def deployed(view: ModelRepository) -> dict[str, ModelCard]:
            return view.verify_all([MODEL])

        metrics = ModelMetrics(self.telemetry)
        return Rollouts(self.engine, self.repository, RolloutFile(self.file), deployed, metrics, self.telemetry)

    async def ask(self, clip: str, timeout: float = 20.0) -> tuple[float, str]:
        """What a clip is answered, and the model whose candidate answered it."""

        async def work(models: ClipModels, seconds: float) -> tuple[float, str]:
            outputs = await models.engine.infer(MODEL, INPUTS, timeout=seconds)
            return round(float(outputs["logit"][0, 0]), 3), models.candidate

        return await self.rollouts.answer(clip, work, timeout=timeout)

    async def ask_all(self, clips: list[str]) -> list[tuple[float, str]]:
        """One clip after another, each compared before the next."""
        found = []
        for clip in clips:
            found.append(await self.ask(clip))
            await self.settled()
        return found

    async def settled(self) -> None:
        if self.rollouts._comparing is not None:
            await asyncio.gather(self.rollouts._comparing, return_exceptions=True)

    @property
    def trial(self) -> Trial:
        return self.rollouts.trials[0]

    def add(self, content: bytes, version: str = "2", *, heads: bool = True) -> None:
        write_version(self.root, version, content)
        if heads:
            write_heads_card(self.root, version, self.repository.at({MODEL: version}).contents())

    def metric(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(name, {"model": MODEL, "candidate": "2", **labels}) or 0.0


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    made = Room(tmp_path)
    yield made
    await made.rollouts.close()
    await made.engine.close()


async def test_without_a_file_the_root_card_decides(room: Room) -> None:
    room.add(scorer(2.0))
    await room.rollouts.ready()
    assert await room.ask_all(CLIPS[:3]) == [(STABLE, "")] * 3


async def test_a_shadow_is_compared_and_never_heard(room: Room) -> None:
    room.add(scorer(OTHER), heads=False)
    write_plan(room.file, scorer=candidate("shadow"))
    await room.rollouts.ready()
    assert await room.ask_all(CLIPS[:5]) == [(STABLE, "")] * 5
    assert (room.trial.state, room.trial.errors.bad, room.trial.disagreements.outcomes) == (TrialState.RUNNING, 0, 5)
    assert room.metric("bonafide_rollout_comparisons_total", mode="shadow") == 5
    expected = np.mean([abs(1 / (1 + np.exp(-x)) - 1 / (1 + np.exp(-OTHER * x))) for x in (1.0, 0.5)])
    assert room.metric("bonafide_rollout_disagreement_sum") == pytest.approx(5 * expected, rel=1e-4)
    assert room.metric("bonafide_rollout_share") == 0


async def test_a_shadow_that_hangs_delays_nothing_and_costs_one_call(tmp_path: Path) -> None:
    room = Room(tmp_path, SlowSecond)
    room.add(scorer(OTHER), heads=False)
    write_plan(room.file, scorer=candidate("shadow", seconds=0.2, minimum=1))
    await room.rollouts.ready()
    assert [await room.ask(clip) for clip in CLIPS[:10]] == [(STABLE, "")] * 10
    assert room.trial.dropped == 9
    await room.settled()
    assert (room.trial.errors.bad, room.trial.errors.outcomes) == (1, 1)
    await room.rollouts.close()


async def test_a_canary_answers_its_share_and_the_same_clips_every_time(room: Room) -> None:
    room.add(scorer(OTHER))
    write_plan(room.file, scorer=candidate("canary", 0.3))
    await room.rollouts.ready()
    answers = await room.ask_all(CLIPS)
    assert set(answers) == {(STABLE, ""), (OTHER, MODEL)}
    assert 15 < answers.count((OTHER, MODEL)) < 45
    assert await room.ask_all(CLIPS) == answers
    assert room.trial.disagreements.outcomes > 0
    assert room.metric("bonafide_rollout_share") == 0.3
    assert await room.ask("") == (STABLE, "")


async def test_a_canary_that_disagrees_is_taken_back(room: Room) -> None:
    room.add(scorer(-6.0))
    write_plan(room.file, scorer=candidate("canary", minimum=10))
    await room.rollouts.ready()
    answers = await room.ask_all(CLIPS[:40])
    assert answers[0] == (-6.0, MODEL)
    assert answers[-1] == (STABLE, "")
    assert (room.trial.state, room.trial.reason) == (TrialState.ROLLED_BACK, "DISAGREEMENT")
    assert room.metric("bonafide_rollbacks_total", reason="DISAGREEMENT") == 1
    assert room.metric("bonafide_rollout_share") == 0
    await room.rollouts.ready()
    assert await room.ask(CLIPS[0]) == (STABLE, "")


@pytest.mark.parametrize("broken", [scorer(float("nan")), scorer(float("inf"))])
async def test_a_canary_that_gives_no_number_costs_no_answer(room: Room, broken: bytes) -> None:
    room.add(broken)
    write_plan(room.file, scorer=candidate("canary", minimum=10))
    await room.rollouts.ready()
    assert await room.ask_all(CLIPS[:30]) == [(STABLE, "")] * 30
    assert (room.trial.state, room.trial.reason) == (TrialState.ROLLED_BACK, "ERRORS")
    assert room.metric("bonafide_rollout_errors_total") == 10


async def test_a_canary_that_hangs_leaves_the_stable_version_its_time(tmp_path: Path) -> None:
    room = Room(tmp_path, SlowSecond)
    room.add(scorer(OTHER))
    write_plan(room.file, scorer=candidate("canary", seconds=0.05))
    await room.rollouts.ready()
    assert await room.ask(CLIPS[0]) == (STABLE, "")
    assert await room.ask(CLIPS[1], timeout=0.2) == (STABLE, "")
    assert room.trial.errors.bad == 2


async def test_a_clip_on_which_both_fail_is_not_held_against_the_candidate(room: Room) -> None:
    room.add(scorer(OTHER))
    write_plan(room.file, scorer=candidate("canary"))
    await room.rollouts.ready()

    async def work(models: ClipModels, seconds: float) -> None:
        await models.engine.infer(MODEL, {"x": np.zeros((1, 3), np.float32)}, timeout=seconds)

    with pytest.raises(BonafideError):
        await room.rollouts.answer(CLIPS[0], work, timeout=5)
    assert room.trial.errors.outcomes == 0


async def test_what_else_takes_long_is_not_held_against_the_candidate(room: Room) -> None:
    room.add(scorer(OTHER))
    write_plan(room.file, scorer=candidate("canary"))
    await room.rollouts.ready()
    asked: list[str] = []

    async def work(models: ClipModels, seconds: float) -> str:
        asked.append(models.candidate)
        if len(asked) == 1:
            await asyncio.sleep(seconds + 60)
        await models.engine.infer(MODEL, INPUTS, timeout=seconds)
        return models.candidate

    assert await room.rollouts.answer(CLIPS[0], work, timeout=2) == ""
    assert asked == [MODEL, ""]
    assert room.trial.errors.outcomes == 0


async def test_a_canary_needs_heads_that_were_fitted_on_it(room: Room) -> None:
    room.add(scorer(OTHER), heads=False)
    write_plan(room.file, scorer=candidate("canary"))
    await room.rollouts.ready()
    assert (room.trial.state, room.trial.reason) == (TrialState.WAITING, "ROLLOUT_WITHOUT_HEADS")
    assert await room.ask(CLIPS[0]) == (STABLE, "")
    write_heads_card(room.root, "2", room.repository.at({MODEL: "2"}).contents())
    await room.rollouts.ready()
    assert await room.ask(CLIPS[0]) == (OTHER, MODEL)


async def test_an_altered_or_missing_candidate_takes_no_part(room: Room) -> None:
    write_plan(room.file, scorer=candidate("shadow"))
    await room.rollouts.ready()
    assert (room.trial.state, room.trial.reason) == (TrialState.WAITING, "MODEL_NOT_DEPLOYED")
    room.add(scorer(OTHER), heads=False)
    file = room.root / MODEL / "2" / "model.onnx"
    file.write_bytes(file.read_bytes() + b"!")
    await room.rollouts.ready()
    assert room.trial.reason == "MODEL_NOT_TRUSTED"
    assert await room.ask(CLIPS[0]) == (STABLE, "")


async def test_a_plan_for_another_service_is_none_of_ours(room: Room) -> None:
    write_plan(room.file, other=candidate("canary"))
    await room.rollouts.ready()
    assert room.rollouts.trials == ()
    assert await room.ask(CLIPS[0]) == (STABLE, "")


async def test_a_promotion_is_in_force_once_it_can_be_served(room: Room) -> None:
    await room.rollouts.ready()
    write_plan(room.file, scorer={"stable": "2"})
    await room.rollouts.ready()
    assert "no version 2" in room.rollouts.problem
    assert await room.ask(CLIPS[0]) == (STABLE, "")
    room.add(scorer(OTHER), heads=False)
    await room.rollouts.ready()
    assert "heads" in room.rollouts.problem
    write_heads_card(room.root, "2", room.repository.at({MODEL: "2"}).contents())
    await room.rollouts.ready()
    assert room.rollouts.problem == ""
    assert await room.ask(CLIPS[0]) == (OTHER, "")


async def test_a_bad_file_leaves_what_is_in_force_and_a_beginner_waits_for_a_good_one(room: Room) -> None:
    room.add(scorer(OTHER))
    write_plan(room.file, scorer={"stable": "2"})
    await room.rollouts.ready()
    room.file.write_text("{}}")
    await room.rollouts.ready()
    assert "invalid" in room.rollouts.problem
    assert await room.ask(CLIPS[0]) == (OTHER, "")
    room.rollouts = room.fresh()
    with pytest.raises(ModelRepositoryError):
        await room.rollouts.ready()


async def test_a_new_word_on_the_candidate_begins_its_trial_anew(room: Room) -> None:
    room.add(scorer(-6.0))
    write_plan(room.file, scorer=candidate("canary", minimum=10))
    await room.rollouts.ready()
    await room.ask_all(CLIPS[:20])
    assert room.trial.state is TrialState.ROLLED_BACK
    write_plan(room.file, scorer=candidate("canary", 0.5, minimum=10))
    await room.rollouts.ready()
    assert room.trial.state is TrialState.RUNNING
    write_plan(room.file)
    await room.rollouts.ready()
    assert room.rollouts.trials == ()
    assert room.metric("bonafide_rollout_share") == 0
