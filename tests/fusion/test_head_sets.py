"""Scores are read by heads that were fitted on them, and heads on trial are compared and heard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bonafide.models_staging import stage
from services.common.errors import BonafideError, UnavailableError
from services.common.evidence import Branch, ModelInfo
from services.common.inference import EmbeddedEngine
from services.common.model_metrics import ModelMetrics
from services.common.models import HEADS, ModelRepository
from services.common.rollout_plan import RolloutFile
from services.common.rollouts import Rollouts
from services.common.telemetry import Telemetry
from services.common.trial import TrialState
from services.fusion.heads import branch_sets, head_key
from services.fusion.pipeline import FusionInput, FusionPipeline
from services.fusion.store import HeadStore
from services.fusion.synchrony import Synchrony, verified_models
from tests.common.versions import MODEL, candidate, repository, scorer, write_plan, write_version
from tests.fusion.conftest import resign, scored, write_heads

CLIP = "ab" * 32


def heads_for(directory: Path, models: Mapping[str, str], intercept: float = -3.0) -> Path:
    """A set of heads that was fitted on these models."""
    write_heads(directory)
    for branches in branch_sets():
        name = f"{head_key(branches)}.json"
        content = json.loads((directory / name).read_text())
        content["training"]["models"] = dict(models)
        content["intercept"] = intercept
        (directory / name).write_text(json.dumps(content))
        resign(directory, name)
    return directory


class Room:
    """A repository with two versions of a model, and heads for each."""

    def __init__(self, root: Path) -> None:
        self.repository = repository(root / "models")
        write_version(self.repository.root, "2", scorer(2.0))
        self.second = self.repository.at({MODEL: "2"})
        self.shipped = heads_for(root / "shipped", self.repository.contents())
        self.source = root / "source"
        self.file = root / "rollout.json"
        self.store = HeadStore(self.shipped, repository=self.repository)
        engine = EmbeddedEngine(self.repository)
        telemetry = Telemetry("fusion")
        file, metrics = RolloutFile(self.file), ModelMetrics(telemetry)
        self.rollouts = Rollouts(engine, self.repository, file, verified_models, metrics, telemetry)
        synchrony = Synchrony(engine, self.repository, self.rollouts)
        self.pipeline = FusionPipeline(self.store, synchrony, telemetry, self.rollouts)

    def stage(self, version: str, models: ModelRepository, intercept: float = -3.0) -> None:
        stage(self.repository, HEADS, version, heads_for(self.source / version, models.contents(), intercept))

    async def look(self) -> None:
        await self.rollouts.ready()
        self.store.refresh(self.rollouts.stable)

    def info(self, version: str) -> ModelInfo:
        card = self.repository.at({MODEL: version}).card(MODEL)
        return ModelInfo(card.name, card.version, card.sha256, "triton", candidate=version == "2")

    async def fuse(self, *models: ModelInfo) -> tuple[float | None, tuple[ModelInfo, ...]]:
        branches = frozenset({Branch.FRAME})
        clip = FusionInput((scored(Branch.FRAME, 0.6),), branches=branches, models=models, content=CLIP)
        result = await self.pipeline.fuse(clip, timeout=5)
        return result.probability, result.models


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


async def test_the_heads_are_those_of_the_models_that_the_evidence_names(room: Room) -> None:
    room.stage("2", room.second, intercept=-1.0)
    await room.look()
    for version in ("1", "2", "1"):
        _, models = await room.fuse(room.info(version))
        assert [(model.version, model.candidate) for model in models] == [(version, False)]


async def test_scores_that_no_heads_may_read_are_refused(room: Room) -> None:
    await room.look()
    with pytest.raises(UnavailableError) as refused:
        await room.fuse(room.info("2"))
    assert refused.value.reason == "HEADS_OF_OTHER_MODELS"
    stranger = ModelInfo(MODEL, "7", "0" * 64, "triton")
    with pytest.raises(UnavailableError):
        await room.fuse(stranger)
    assert (await room.fuse(room.info("1")))[0] is not None


async def test_promoted_models_take_their_heads_with_them(room: Room) -> None:
    room.stage("2", room.second)
    write_plan(room.file, scorer={"stable": "2"})
    await room.look()
    assert [model.version for model in (await room.fuse())[1]] == ["2"]
    assert [info.version for info in room.store.at_work()] == ["2", "1"]


@pytest.mark.parametrize(("mode", "heard"), [("shadow", "1"), ("canary", "3")])
async def test_heads_on_trial_are_compared_and_only_a_canary_is_heard(room: Room, mode: str, heard: str) -> None:
    room.stage("3", room.repository, intercept=-2.9)
    write_plan(room.file, fusion_heads=candidate(mode, version="3"))
    await room.look()
    assert room.rollouts.trials[0].disagreements.outcomes == 0
    probability, models = await room.fuse(room.info("1"))
    assert [(model.version, model.candidate) for model in models] == [(heard, mode == "canary")]
    assert room.rollouts.trials[0].disagreements.outcomes == 1
    write_plan(room.file)
    await room.look()
    alone, _ = await room.fuse(room.info("1"))
    assert (probability == alone) is (mode == "shadow")


async def test_heads_that_disagree_are_taken_back(room: Room) -> None:
    room.stage("3", room.repository, intercept=9.0)
    write_plan(room.file, fusion_heads=candidate("canary", version="3", minimum=5))
    await room.look()
    versions = [(await room.fuse(room.info("1")))[1][0].version for _ in range(20)]
    assert (versions[0], versions[-1]) == ("3", "1")
    assert room.rollouts.trials[0].state is TrialState.ROLLED_BACK


async def test_heads_of_other_models_are_not_tried(room: Room) -> None:
    room.stage("3", room.second)
    write_plan(room.file, fusion_heads=candidate("canary", version="3"))
    await room.look()
    assert room.rollouts.trials[0].reason == "ROLLOUT_WITHOUT_HEADS"
    assert (await room.fuse(room.info("1")))[1][0].version == "1"


async def test_an_altered_staged_set_is_left_out(room: Room) -> None:
    room.stage("2", room.second)
    file = room.repository.root / HEADS / "2" / "manifest.json"
    file.write_bytes(file.read_bytes() + b" ")
    await room.look()
    assert [info.version for info in room.store.at_work()] == ["1"]


def test_heads_that_do_not_say_what_they_were_fitted_on_are_not_staged(room: Room) -> None:
    with pytest.raises(BonafideError, match="fitted on"):
        stage(room.repository, HEADS, "4", write_heads(room.source / "4"))
    assert not list((room.repository.root / HEADS).glob("*"))


def test_a_staged_card_names_the_manifest_and_the_models(room: Room) -> None:
    room.stage("2", room.second)
    card: dict[str, Any] = json.loads((room.repository.root / HEADS / "2" / "card.json").read_text())
    manifest = (room.repository.root / HEADS / "2" / "manifest.json").read_bytes()
    assert card["sha256"] == hashlib.sha256(manifest).hexdigest()
    assert card["models"] == room.second.contents()
