from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from services.audio.pipeline import AudioPipeline, WindowPlan
from services.audio.preparation import prepare
from services.common.evidence import AudioEvidence, Branch, Outcome, ReasonCode
from services.common.inference import EmbeddedEngine
from services.common.media import AudioTrack
from services.common.models import ModelRepository
from services.common.telemetry import STAGE_DURATION, Telemetry

Sound = npt.NDArray[np.float32]
Speech = Callable[[float], Sound]
ALL = frozenset[Branch]()


async def analyze(pipeline: AudioPipeline, samples: Sound, start_us: int = 0) -> AudioEvidence:
    return await pipeline.analyze(AudioTrack(start_us, samples), ALL, timeout=60)


def unscored(evidence: AudioEvidence) -> ReasonCode | None:
    (report,) = evidence.reports
    assert report.branch is Branch.AUDIO
    assert report.outcome is Outcome.NOT_APPLICABLE
    assert report.score is None
    assert not report.features
    assert not evidence.models
    return report.reason


async def test_speech_is_scored(pipeline: AudioPipeline, speech: Speech) -> None:
    evidence = await analyze(pipeline, speech(9.0), start_us=500_000)
    (report,) = evidence.reports
    assert report.outcome is Outcome.SCORED
    assert report.model == "spoof_classifier/1"
    assert report.score == report.features["audio_prob_fake"]
    assert 0 < report.features["audio_prob_fake"] < 1
    assert len(report.timeline) == 3
    assert report.timeline[0].time_us >= 500_000
    assert report.timeline[-1].time_us + report.timeline[-1].duration_us <= 9_500_000
    assert evidence.speech_fraction > 0.7
    assert evidence.voice is not None
    assert [model.name for model in evidence.models] == ["spoof_classifier"]


async def test_the_score_is_the_mean_logit_weighted_by_speech(
    pipeline: AudioPipeline, engine: EmbeddedEngine, speech: Speech
) -> None:
    voice = np.concatenate([speech(5.5), np.zeros(40_000, np.float32)])
    evidence = await analyze(pipeline, voice)
    logits, weights = [], []
    for window in evidence.windows:
        cut = voice[window.start_us * 16 // 1000 : window.end_us * 16 // 1000]
        logits.append(float(engine.run("spoof_classifier", {"samples": prepare(cut)[None]})["logit"][0, 0]))
        weights.append(window.speech_fraction * (window.end_us - window.start_us))
    expected = 1 / (1 + np.exp(-np.average(logits, weights=weights)))
    assert len(logits) == 2
    assert evidence.reports[0].score == pytest.approx(expected, rel=1e-6)


async def test_loudness_does_not_move_the_score(pipeline: AudioPipeline, speech: Speech) -> None:
    voice = speech(4.0)
    loud, quiet = await analyze(pipeline, voice), await analyze(pipeline, (voice * np.float32(0.1)))
    assert loud.reports[0].score == pytest.approx(quiet.reports[0].score, abs=1e-3)


async def test_silence_has_no_speech(pipeline: AudioPipeline) -> None:
    evidence = await analyze(pipeline, np.zeros(5 * 16000, np.float32))
    assert unscored(evidence) is ReasonCode.NO_SPEECH
    assert evidence.speech_fraction == 0
    assert evidence.voice is None


async def test_noise_has_no_speech(pipeline: AudioPipeline) -> None:
    noise = np.random.default_rng(0).standard_normal(5 * 16000).astype(np.float32) * 0.1
    assert unscored(await analyze(pipeline, noise)) is ReasonCode.NO_SPEECH


async def test_no_sound(pipeline: AudioPipeline) -> None:
    assert unscored(await analyze(pipeline, np.zeros(0, np.float32))) is ReasonCode.NO_AUDIO


async def test_a_moment_of_sound_is_too_short(pipeline: AudioPipeline, speech: Speech) -> None:
    assert unscored(await analyze(pipeline, speech(0.3))) is ReasonCode.CLIP_TOO_SHORT


async def test_only_so_many_windows_are_scored(
    engine: EmbeddedEngine, repository: ModelRepository, speech: Speech
) -> None:
    pipeline = AudioPipeline(engine, repository, WindowPlan(seconds=2.0, most=3))
    evidence = await analyze(pipeline, speech(15.0))
    assert len(evidence.windows) > 6
    assert len(evidence.reports[0].timeline) == 3


async def test_a_branch_that_is_not_asked_for_leaves_the_voice_for_synchrony(
    pipeline: AudioPipeline, speech: Speech
) -> None:
    sound = AudioTrack(0, speech(3.0))
    evidence = await pipeline.analyze(sound, frozenset({Branch.SYNC}), timeout=60)
    assert evidence.reports[0].outcome is Outcome.NOT_REQUESTED
    assert evidence.voice is not None


async def test_no_time_left_is_written_into_the_report(pipeline: AudioPipeline, speech: Speech) -> None:
    evidence = await pipeline.analyze(AudioTrack(0, speech(3.0)), ALL, timeout=0.0)
    assert evidence.reports[0].outcome is Outcome.TIMED_OUT
    assert evidence.reports[0].reason is ReasonCode.BRANCH_TIMED_OUT
    assert evidence.voice is not None


async def test_an_altered_model_never_scores(tmp_path: Path, repository: ModelRepository, speech: Speech) -> None:
    copy = tmp_path / "models"
    shutil.copytree(repository.root / "spoof_classifier", copy / "spoof_classifier")
    file = copy / "spoof_classifier" / "1" / "model.onnx"
    altered = bytearray(file.read_bytes())
    altered[len(altered) // 2] ^= 1
    file.write_bytes(altered)
    models = ModelRepository(copy)
    evidence = await analyze(AudioPipeline(EmbeddedEngine(models), models, WindowPlan()), speech(3.0))
    assert evidence.reports[0].outcome is Outcome.FAILED
    assert evidence.reports[0].score is None


async def test_no_model_is_not_deployed(tmp_path: Path, speech: Speech) -> None:
    models = ModelRepository(tmp_path)
    evidence = await analyze(AudioPipeline(EmbeddedEngine(models), models, WindowPlan()), speech(3.0))
    assert evidence.reports[0].outcome is Outcome.NOT_DEPLOYED


async def test_stages_are_timed_that_took_place(
    engine: EmbeddedEngine, repository: ModelRepository, speech: Speech
) -> None:
    telemetry = Telemetry("audio")
    pipeline = AudioPipeline(engine, repository, WindowPlan(), telemetry)
    await analyze(pipeline, speech(2.0))
    await analyze(pipeline, np.zeros(16000, np.float32))
    read = telemetry.registry.get_sample_value
    timed = [read(STAGE_DURATION.name + "_count", {"stage": stage}) for stage in ("listen", "score")]
    assert timed == [2, 1]
