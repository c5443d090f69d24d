from __future__ import annotations

import math
from pathlib import Path

import pytest

from services.common.errors import InvalidInputError
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode, Verdict
from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.fusion.pipeline import FusionInput, FusionPipeline
from services.fusion.store import HeadStore
from services.fusion.synchrony import Synchrony
from tests.fusion.conftest import scored


@pytest.fixture
def pipeline(store: HeadStore, tmp_path: Path) -> FusionPipeline:
    """A pipeline without the sync model."""
    repository = ModelRepository(tmp_path / "no_models")
    return FusionPipeline(store, Synchrony(EmbeddedEngine(repository), repository))


def ledger(**scores: float) -> tuple[BranchReport, ...]:
    return tuple(scored(Branch(name), value) for name, value in scores.items())


async def test_agreeing_branches_make_a_deepfake(pipeline: FusionPipeline) -> None:
    result = await pipeline.fuse(FusionInput(ledger(patch=0.9, frame=0.95, audio=0.9)), timeout=1)
    assert result.verdict is Verdict.DEEPFAKE
    assert result.reasons == (ReasonCode.ABOVE_DEEPFAKE_THRESHOLD,)
    assert result.probability is not None
    total = sum(part.log_odds for part in result.contributions)
    assert total == pytest.approx(math.log(result.probability / (1 - result.probability)))
    assert [(model.name, model.engine) for model in result.models] == [("fusion_head.patch_frame_audio", "head")]
    assert result.sync.outcome is Outcome.NOT_DEPLOYED


async def test_a_clean_face_is_authentic(pipeline: FusionPipeline) -> None:
    result = await pipeline.fuse(FusionInput(ledger(patch=0.1, frame=0.05)), timeout=1)
    assert result.verdict is Verdict.AUTHENTIC
    assert result.policy.name == "balanced"


async def test_clean_sound_alone_is_too_little(pipeline: FusionPipeline) -> None:
    silent = BranchReport(Branch.FRAME, Outcome.NOT_APPLICABLE, ReasonCode.NO_FACE)
    result = await pipeline.fuse(FusionInput((*ledger(audio=0.01), silent)), timeout=1)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reasons == (ReasonCode.TOO_LITTLE_EVIDENCE, ReasonCode.NO_FACE)
    assert result.probability is not None


async def test_no_branch_means_no_probability(pipeline: FusionPipeline) -> None:
    reports = (
        BranchReport(Branch.FRAME, Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT),
        BranchReport(Branch.AUDIO, Outcome.NOT_APPLICABLE, ReasonCode.NO_AUDIO),
    )
    result = await pipeline.fuse(FusionInput(reports), timeout=1)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.probability is None
    assert result.contributions == ()
    assert result.reasons == (
        ReasonCode.TOO_LITTLE_EVIDENCE,
        ReasonCode.BRANCH_TIMED_OUT,
        ReasonCode.NO_AUDIO,
    )
    assert result.models == ()


async def test_the_policy_decides(pipeline: FusionPipeline) -> None:
    reports = ledger(frame=0.93)
    assert (await pipeline.fuse(FusionInput(reports), timeout=1)).verdict is Verdict.DEEPFAKE
    cautious = await pipeline.fuse(FusionInput(reports, policy="cautious"), timeout=1)
    assert cautious.verdict is Verdict.INCONCLUSIVE
    assert cautious.reasons == (ReasonCode.WITHIN_ABSTAIN_BAND,)
    with pytest.raises(InvalidInputError):
        await pipeline.fuse(FusionInput(reports, policy="unheard of"), timeout=1)


async def test_branches_that_were_not_asked_for_do_not_count(pipeline: FusionPipeline) -> None:
    reports = ledger(frame=0.5, audio=0.9)
    result = await pipeline.fuse(FusionInput(reports, branches=frozenset({Branch.FRAME})), timeout=1)
    assert [part.feature for part in result.contributions][-2:] == ["visual_num_faces", "intercept"]
    assert result.sync.outcome is Outcome.NOT_REQUESTED
