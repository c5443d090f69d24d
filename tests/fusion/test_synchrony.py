from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from services.common.evidence import (
    Branch,
    BranchReport,
    FusionResult,
    MotionSequence,
    Outcome,
    ReasonCode,
    VoiceSequence,
)
from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.common.telemetry import STAGE_DURATION, Telemetry
from services.fusion.clock import SLOT_US
from services.fusion.pipeline import FusionInput, FusionPipeline
from services.fusion.store import HeadStore
from services.fusion.synchrony import Synchrony, SynchronyResult
from tests.fusion.conftest import scored
from training.data import clips
from training.served import ServedPipelines, heard, joined, seen

MODELS = Path(__file__).parents[2] / "model_repository"
SHIFTED = "real_shifted_RD_Radio22_{}ms.mp4"


@pytest.fixture
def synchrony() -> Synchrony:
    repository = ModelRepository(MODELS)
    return Synchrony(EmbeddedEngine(repository), repository)


def lips(seconds: float, *, moving: bool = True, track_id: int = 1) -> MotionSequence:
    random = np.random.default_rng(track_id)
    slots = round(seconds * 1e6 / SLOT_US)
    shape = random.normal(0, 0.3, 80)
    values = shape + random.normal(0, 0.05 if moving else 0.0001, (slots, 80))
    return MotionSequence(track_id, tuple(range(0, slots * SLOT_US, SLOT_US)), values.astype(np.float32))


def voice(seconds: float) -> VoiceSequence:
    random = np.random.default_rng(7)
    return VoiceSequence(0, 10_000, random.normal(-8, 3, (round(seconds * 100), 40)).astype(np.float32))


async def line(
    synchrony: Synchrony, motions: list[MotionSequence], sound: VoiceSequence | None, *reports: BranchReport
) -> SynchronyResult:
    return await synchrony.score(motions, sound, reports, wanted=True, timeout=10)


async def test_lips_and_a_strange_voice_are_scored(synchrony: Synchrony) -> None:
    result = await line(synchrony, [lips(6)], voice(6))
    report = result.report
    assert report.outcome is Outcome.SCORED
    assert report.score == report.features["sync_prob"]
    assert report.features["sync_offset_us"] % SLOT_US == 0
    assert abs(report.features["sync_offset_us"]) <= 15 * SLOT_US
    assert report.features["sync_confidence"] >= 0
    assert [point.duration_us for point in report.timeline] == [1_000_000] * 5
    assert [point.time_us for point in report.timeline] == [500_000 + index * 1_000_000 for index in range(5)]
    assert [model.name for model in result.models] == ["sync"]


async def test_a_still_face_is_named(synchrony: Synchrony) -> None:
    result = await line(synchrony, [lips(6, moving=False)], voice(6))
    assert result.findings == (ReasonCode.STILL_FACE,)


async def test_the_face_that_fits_best_speaks_for_the_clip(synchrony: Synchrony) -> None:
    faces = [lips(6, track_id=1), lips(6, track_id=2), lips(6, moving=False, track_id=3)]
    alone = [(await line(synchrony, [face], voice(6))).report.score for face in faces]
    together = (await line(synchrony, faces, voice(6))).report.score
    assert together == pytest.approx(min(score for score in alone if score is not None))


NO_FACE = BranchReport(Branch.FRAME, Outcome.NOT_APPLICABLE, ReasonCode.NO_FACE)
NO_SPEECH = BranchReport(Branch.AUDIO, Outcome.NOT_APPLICABLE, ReasonCode.NO_SPEECH)
LATE = BranchReport(Branch.FRAME, Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT)
DEAF = BranchReport(Branch.AUDIO, Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE)
FRAME = BranchReport(Branch.FRAME, Outcome.SCORED, score=0.5)


@dataclass(frozen=True, slots=True)
class Missing:
    """A clip that lacks something: seconds of lips and of voice, and what the other branches say."""

    lips: tuple[float, ...]
    voice: float | None
    report: BranchReport
    outcome: Outcome
    reason: ReasonCode


@pytest.mark.parametrize(
    "case",
    [
        Missing((), 6.0, NO_FACE, Outcome.NOT_APPLICABLE, ReasonCode.NO_FACE),
        Missing((), 6.0, FRAME, Outcome.NOT_APPLICABLE, ReasonCode.CLIP_TOO_SHORT),
        Missing((), 6.0, LATE, Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT),
        Missing((6.0,), None, FRAME, Outcome.NOT_APPLICABLE, ReasonCode.NO_AUDIO),
        Missing((6.0,), 6.0, NO_SPEECH, Outcome.NOT_APPLICABLE, ReasonCode.NO_SPEECH),
        Missing((6.0,), None, DEAF, Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE),
        Missing((1.0,), 6.0, FRAME, Outcome.NOT_APPLICABLE, ReasonCode.CLIP_TOO_SHORT),
    ],
)
async def test_what_is_missing_is_said(synchrony: Synchrony, case: Missing) -> None:
    sound = voice(case.voice) if case.voice is not None else None
    result = await line(synchrony, [lips(seconds) for seconds in case.lips], sound, case.report)
    assert (result.report.outcome, result.report.reason) == (case.outcome, case.reason)
    assert result.report.score is None


async def test_without_the_model_it_is_not_deployed(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    result = await line(Synchrony(EmbeddedEngine(repository), repository), [lips(6)], voice(6))
    assert result.report.outcome is Outcome.NOT_DEPLOYED


async def test_no_time_left_is_said(synchrony: Synchrony) -> None:
    result = await synchrony.score([lips(6)], voice(6), (), wanted=True, timeout=0)
    assert result.report.outcome is Outcome.TIMED_OUT


async def test_the_sync_line_reaches_the_verdict(synchrony: Synchrony, store: HeadStore) -> None:
    pipeline = FusionPipeline(store, synchrony)
    clip = FusionInput((), (lips(6, moving=False),), voice(6))
    result: FusionResult = await pipeline.fuse(clip, timeout=10)
    assert result.sync.outcome is Outcome.SCORED
    assert [model.name for model in result.models] == ["sync", "fusion_head.sync"]


async def test_stages_are_timed_that_took_place(synchrony: Synchrony, store: HeadStore) -> None:
    telemetry = Telemetry("fusion")
    pipeline = FusionPipeline(store, synchrony, telemetry=telemetry)
    await pipeline.fuse(FusionInput((), (lips(6),), voice(6)), timeout=10)
    await pipeline.fuse(FusionInput((scored(Branch.FRAME, 0.2),)), timeout=10)
    read = telemetry.registry.get_sample_value
    assert [read(STAGE_DURATION.name + "_count", {"stage": stage}) for stage in ("sync", "head")] == [1, 2]


@pytest.mark.skipif(not clips(), reason="the labelled data is not there (BONAFIDE_DATA)")
def test_a_known_shift_of_the_sound_is_measured() -> None:
    by_name = {clip.example.file: clip for clip in clips()}
    served = ServedPipelines(MODELS)
    offsets = {}
    for milliseconds in (0, 200, 480):
        clip = served.decode(by_name[SHIFTED.format(milliseconds)].path)
        ledger = joined(seen(served.see((), clip.dense)), heard(served.hear(clip.audio)))
        offsets[milliseconds] = served.synchrony(ledger).features["sync_offset_us"] / 1000
    assert offsets[200] - offsets[0] == pytest.approx(200, abs=40)
    assert offsets[480] - offsets[0] == pytest.approx(480, abs=40)
