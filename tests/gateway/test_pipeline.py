"""The story of a request: what is asked of whom, what lands in the ledger, and how it ends."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import (
    BonafideError,
    DeadlineError,
    InvalidInputError,
    LimitExceededError,
    UnavailableError,
)
from services.common.evidence import VISUAL_BRANCHES, Branch, BranchReport, Outcome, ReasonCode, Verdict
from services.common.models import ModelRepository
from services.common.rollout_plan import RolloutFile
from services.common.telemetry import Telemetry
from services.gateway.admission import Admission, AdmissionRules
from services.gateway.analysis import Analysis, Event, Options, Priority, Progress, Stage
from services.gateway.answers import Answers, RequestIds
from services.gateway.decode_pool import DecodePool
from services.gateway.limits import DecodeLimits
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Allowances, Pipeline
from services.gateway.reception import Reception, UploadLimits
from services.gateway.sampling import SamplingPlan
from services.gateway.served_models import ModelFingerprint, ServedModels
from services.gateway.upload_pace import UploadPace
from services.gateway.waiting_room import LaneRule
from tests import media_factory as media
from tests.gateway.stand_ins import Audio, Fusion, Visual
from tests.media_factory import Clip

CLIP = Clip(frames=25).bytes()
SILENT = Clip(frames=25, audio_codec=None).bytes()
SOUND = media.sound_file(sound=media.tone(1.0))
ALLOWANCES = Allowances(branch_seconds=5.0, fusion_seconds=1.0)
STAGES = list(Stage)
UPLOADS = UploadLimits(1 << 20, 1 << 16, UploadPace(bytes_per_second=1000.0, window_seconds=5.0, idle_seconds=5.0))
LANES = {priority: LaneRule(weight=1.0, places=4) for priority in Priority}
RULES = AdmissionRules(
    analyses=2,
    uploads=4,
    lanes=LANES,
    analysis_bytes=1 << 20,
    upload_memory_bytes=1 << 16,
    memory_bytes=1 << 24,
    spool_bytes=1 << 24,
)
MODELS = ModelFingerprint(ServedModels(ModelRepository(Path("nowhere")), RolloutFile(None)), 60.0)


async def chunks(data: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


class Gateway:
    """A pipeline with stand-ins on all sides."""

    def __init__(
        self,
        visual: Visual | None = None,
        audio: Audio | None = None,
        fusion: Fusion | None = None,
        allowances: Allowances = ALLOWANCES,
        rules: AdmissionRules = RULES,
        uploads: UploadLimits = UPLOADS,
    ) -> None:
        self.visual, self.audio, self.fusion = visual or Visual(), audio or Audio(), fusion or Fusion()
        self.decoder = DecodePool(1, SamplingPlan(), DecodeLimits())
        pipeline = Pipeline(self.decoder, self.visual, self.audio, self.fusion, allowances)
        self.admission = Admission(rules)
        self.telemetry = Telemetry("gateway")
        self.reception = Reception(
            pipeline,
            self.admission,
            Answers(1 << 20, 60.0),
            RequestIds(100, 60.0),
            MODELS,
            GatewayMetrics(self.telemetry),
            uploads,
        )
        self.events: list[Event] = []

    async def run(self, data: bytes, options: Options | None = None, timeout: float = 30.0) -> Analysis:
        async for event in self.reception.analyze(options or Options("r"), chunks(data), timeout=timeout):
            self.events.append(event)
        await self.decoder.close()
        last = self.events[-1]
        assert isinstance(last, Analysis)
        return last


def outcomes(analysis: Analysis) -> dict[Branch, tuple[Outcome, ReasonCode | None]]:
    return {line.branch: (line.outcome, line.reason) for line in analysis.branches}


async def test_a_clip_goes_to_both_sides_and_comes_back_fused() -> None:
    gateway = Gateway()
    analysis = await gateway.run(CLIP)
    assert [line.branch for line in analysis.branches] == list(Branch)
    assert [line.score for line in analysis.branches] == [0.25, 0.25, 0.25, 0.75, None]
    assert analysis.fusion.verdict is Verdict.AUTHENTIC
    digest = hashlib.sha256(CLIP).hexdigest()
    assert (analysis.media.size_bytes, analysis.media.sha256) == (len(CLIP), digest)
    (case,) = gateway.fusion.cases
    assert [*gateway.visual.contents, *gateway.audio.contents, case.content] == [digest] * 3
    ((survey, dense, branches, _),) = gateway.visual.asked
    assert (len(survey), len(dense), branches) == (16, 25, set(VISUAL_BRANCHES))
    (case,) = gateway.fusion.cases
    assert {line.branch for line in case.reports} == set(Branch) - {Branch.SYNC}
    assert (len(case.evidence.motions), case.evidence.voice is not None) == (1, True)
    assert [model.name for model in analysis.models] == ["face_detector"]


async def test_progress_climbs_and_every_line_is_told_once() -> None:
    gateway = Gateway()
    analysis = await gateway.run(CLIP)
    steps = [event for event in gateway.events if isinstance(event, Progress)]
    assert [step.percent for step in steps] == sorted(step.percent for step in steps)
    assert list(dict.fromkeys(step.stage for step in steps)) == STAGES
    assert steps[-1].percent == 100.0
    lines = [event for event in gateway.events if isinstance(event, BranchReport)]
    assert sorted(lines, key=lambda line: list(Branch).index(line.branch)) == list(analysis.branches)
    assert [time.stage for time in analysis.timings] == STAGES[:-1]
    assert all(time.milliseconds >= 0 for time in analysis.timings)


async def test_each_side_lands_when_it_is_done() -> None:
    gateway = Gateway(visual=Visual(seconds=0.3))
    await gateway.run(CLIP)
    lines = [event.branch for event in gateway.events if isinstance(event, BranchReport)]
    assert lines == [Branch.AUDIO, *VISUAL_BRANCHES, Branch.SYNC]


async def test_a_clip_without_sound_is_judged_by_its_pictures() -> None:
    gateway = Gateway()
    analysis = await gateway.run(SILENT)
    assert outcomes(analysis)[Branch.AUDIO] == (Outcome.NOT_APPLICABLE, ReasonCode.NO_AUDIO)
    assert outcomes(analysis)[Branch.FRAME] == (Outcome.SCORED, None)
    assert gateway.audio.asked == []


async def test_sound_alone_is_judged_by_the_audio_branch() -> None:
    gateway = Gateway()
    analysis = await gateway.run(SOUND)
    for branch in VISUAL_BRANCHES:
        assert outcomes(analysis)[branch] == (Outcome.NOT_APPLICABLE, ReasonCode.NO_VIDEO)
    assert outcomes(analysis)[Branch.AUDIO] == (Outcome.SCORED, None)
    assert gateway.visual.asked == []


async def test_only_the_branches_asked_for_are_run() -> None:
    gateway = Gateway()
    analysis = await gateway.run(CLIP, Options("r", branches=frozenset({Branch.PATCH})))
    assert gateway.visual.asked[0][2] == {Branch.PATCH}
    assert gateway.audio.asked == []
    found = outcomes(analysis)
    assert found.pop(Branch.PATCH) == (Outcome.SCORED, None)
    assert set(found.values()) == {(Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED)}


async def test_synchrony_alone_still_needs_both_sides() -> None:
    gateway = Gateway()
    analysis = await gateway.run(CLIP, Options("r", branches=frozenset({Branch.SYNC})))
    assert (len(gateway.visual.asked), len(gateway.audio.asked)) == (1, 1)
    assert [line.score for line in analysis.branches] == [None] * 5
    assert len(gateway.fusion.cases[0].evidence.motions) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UnavailableError("gone"), (Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE)),
        (DeadlineError("late"), (Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT)),
        (BonafideError("broken"), (Outcome.FAILED, ReasonCode.BRANCH_ERROR)),
    ],
)
async def test_a_side_that_fails_is_named_and_the_other_decides(
    error: BonafideError, outcome: tuple[Outcome, ReasonCode]
) -> None:
    analysis = await Gateway(visual=Visual(error=error)).run(CLIP)
    assert [outcomes(analysis)[branch] for branch in VISUAL_BRANCHES] == [outcome] * 3
    assert outcomes(analysis)[Branch.AUDIO] == (Outcome.SCORED, None)
    assert analysis.fusion.verdict is Verdict.AUTHENTIC


async def test_all_sides_unreachable_is_an_error_and_no_verdict() -> None:
    gone = UnavailableError("gone")
    with pytest.raises(UnavailableError) as refused:
        await Gateway(Visual(error=gone), Audio(error=gone)).run(CLIP)
    assert refused.value.reason == "BRANCHES_UNAVAILABLE"
    with pytest.raises(UnavailableError):
        await Gateway(visual=Visual(error=gone)).run(SILENT)


async def test_fusion_unreachable_is_an_error() -> None:
    with pytest.raises(UnavailableError):
        await Gateway(fusion=Fusion(error=UnavailableError("gone"))).run(CLIP)


async def test_what_the_gateway_knows_is_among_the_reasons() -> None:
    damaged = media.cut(media.fast_start(frames=100))
    analysis = await Gateway(visual=Visual(tracks_skipped=2)).run(damaged)
    assert analysis.media.partial
    assert analysis.reasons == (
        ReasonCode.BELOW_AUTHENTIC_THRESHOLD,
        ReasonCode.PARTIAL_MEDIA,
        ReasonCode.TRACKS_SKIPPED,
    )


async def test_no_verdict_is_formed_on_a_file_that_is_damaged_inside() -> None:
    damaged = media.flip_bytes(media.fast_start(frames=100), seed=0)
    analysis = await Gateway().run(damaged)
    assert analysis.media.interrupted
    assert analysis.fusion.verdict is Verdict.INCONCLUSIVE
    assert analysis.fusion.probability is None
    assert analysis.reasons == (ReasonCode.TOO_LITTLE_EVIDENCE, ReasonCode.PARTIAL_MEDIA)


async def test_branches_get_what_the_caller_has_left_less_what_fusion_needs() -> None:
    gateway = Gateway(allowances=replace(ALLOWANCES, branch_seconds=60.0))
    await gateway.run(CLIP, timeout=30.0)
    assert 0 < gateway.visual.asked[0][3] <= 29.0
    patient = Gateway()
    await patient.run(CLIP, timeout=100.0)
    assert patient.audio.asked[0][2] == 5.0


async def test_the_budget_of_every_hop_is_in_the_answer() -> None:
    gateway = Gateway()
    analysis = await gateway.run(CLIP, timeout=100.0)
    budgets = [time.budget_milliseconds for time in analysis.timings]
    assert budgets == sorted(budgets, reverse=True)
    assert 0 < budgets[-1] < budgets[0] <= 100_000
    lines = {line.branch: line.budget_milliseconds for line in analysis.branches}
    assert [lines[branch] for branch in (*VISUAL_BRANCHES, Branch.AUDIO)] == [pytest.approx(5000)] * 4
    late = await Gateway(visual=Visual(error=DeadlineError("late"))).run(CLIP)
    assert late.branches[0].budget_milliseconds == pytest.approx(5000)
    sound = await Gateway().run(SOUND)
    assert sound.branches[0].budget_milliseconds == 0


async def test_time_used_up_before_the_decode_is_a_deadline_error() -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield CLIP[:10]
        await asyncio.sleep(60)

    gateway = Gateway()
    with pytest.raises(DeadlineError):
        async for _ in gateway.reception.analyze(Options("r"), stalled(), timeout=0.2):
            pass


async def test_refusals_come_before_any_branch_is_asked() -> None:
    gateway = Gateway()
    with pytest.raises(LimitExceededError) as refused:
        await gateway.run(CLIP, Options("r", size_bytes=(1 << 20) + 1))
    assert refused.value.reason == "FILE_TOO_LARGE"
    with pytest.raises(LimitExceededError):
        await gateway.run(bytes((1 << 20) + 1))
    with pytest.raises(InvalidInputError) as empty:
        await gateway.run(b"")
    assert empty.value.reason == "EMPTY_INPUT"
    with pytest.raises(InvalidInputError):
        await gateway.run(media.text_file())
    assert gateway.visual.asked == []


async def test_a_caller_who_goes_away_ends_the_branches() -> None:
    gateway = Gateway(visual=Visual(seconds=60))
    task = asyncio.create_task(gateway.run(CLIP))
    await gateway.visual.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gateway.visual.cancelled


async def test_a_caller_who_goes_away_ends_the_decode() -> None:
    pool = DecodePool(1, SamplingPlan(), DecodeLimits())
    large = Clip(frames=100, width=1280, height=720, audio_codec=None).bytes()
    source = io.BytesIO(large)
    first, second = (asyncio.create_task(pool.decode(source)), asyncio.create_task(pool.decode(io.BytesIO(large))))
    await asyncio.sleep(0.05)
    for task in (second, first):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    source.close()
    await pool.close()
