"""Every shared value survives the wire unchanged, and broken messages are refused."""

import numpy as np
import pytest

from bonafide.v1 import evidence_pb2, media_pb2
from services.common import converters
from services.common.errors import InvalidInputError
from services.common.evidence import (
    Behaviour,
    Branch,
    BranchReport,
    FaceTrack,
    ModelInfo,
    MotionSequence,
    Outcome,
    ReasonCode,
    ScorePoint,
    SpeechWindow,
    VoiceSequence,
)
from services.common.media import AudioTrack


def test_every_enum_of_the_contract_has_its_twin() -> None:
    def names(descriptor: object, prefix: str) -> set[str]:
        keys = descriptor.keys()  # type: ignore[attr-defined]
        return {name.removeprefix(prefix) for name in keys} - {"UNSPECIFIED"}

    assert names(evidence_pb2.Branch, "BRANCH_") == {branch.name for branch in Branch}
    assert names(evidence_pb2.Outcome, "OUTCOME_") == {outcome.name for outcome in Outcome}
    assert names(evidence_pb2.ReasonCode, "REASON_CODE_") == {reason.name for reason in ReasonCode}


@pytest.mark.parametrize("score", [None, 0.0, 0.25])
def test_report_round_trip_keeps_absent_apart_from_zero(score: float | None) -> None:
    report = BranchReport(
        Branch.FRAME,
        Outcome.SCORED,
        ReasonCode.EARLY_EXIT,
        score,
        12.5,
        "frame_classifier/1",
        {"visual_prob_mean": 0.5},
        (ScorePoint(40_000, 0, 1, 0.5),),
    )
    assert converters.report_from_proto(converters.report_to_proto(report)) == report


def test_track_round_trip_keeps_unmeasured_apart_from_zero() -> None:
    measured = Behaviour(6, 36.0, 0.3, 0.01, 0.0, 10.0, ((0, 0.25), (40_000, 0.5)))
    for behaviour in (Behaviour(), measured):
        track = FaceTrack(1, 0, 10_000_000, (0.25, 0.25, 0.5, 0.75), 96.0, 14, behaviour)
        assert converters.track_from_proto(converters.track_to_proto(track)) == track


def test_arrays_round_trip() -> None:
    rng = np.random.default_rng(0)
    audio = AudioTrack(-5, rng.standard_normal(9).astype(np.float32))
    assert np.array_equal(converters.audio_from_proto(converters.audio_to_proto(audio)).samples, audio.samples)
    motion = MotionSequence(2, (0, 40_000), rng.standard_normal((2, 4)).astype(np.float32))
    again = converters.motion_from_proto(converters.motion_to_proto(motion))
    assert again.time_us == motion.time_us
    assert np.array_equal(again.values, motion.values)
    voice = VoiceSequence(3, 10_000, rng.standard_normal((6, 40)).astype(np.float32))
    assert np.array_equal(converters.voice_from_proto(converters.voice_to_proto(voice)).values, voice.values)
    window = SpeechWindow(0, 4_000_000, 0.5)
    assert converters.window_from_proto(converters.window_to_proto(window)) == window
    model = ModelInfo("m", "1", "ab", "triton")
    assert converters.model_from_proto(converters.model_to_proto(model)) == model


def test_broken_messages_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        converters.frame_from_proto(media_pb2.VideoFrame(width=2, height=2, rgb=b"123"))
    with pytest.raises(InvalidInputError):
        converters.frame_from_proto(media_pb2.VideoFrame(width=0, height=2, rgb=b""))
    with pytest.raises(InvalidInputError):
        converters.audio_from_proto(media_pb2.AudioTrack(sample_rate=8000, samples=b""))
    with pytest.raises(InvalidInputError):
        converters.audio_from_proto(media_pb2.AudioTrack(sample_rate=16000, samples=b"12345"))
    nan = np.array([np.nan], dtype="<f4").tobytes()
    with pytest.raises(InvalidInputError):
        converters.audio_from_proto(media_pb2.AudioTrack(sample_rate=16000, samples=nan))
    with pytest.raises(InvalidInputError):
        converters.motion_from_proto(evidence_pb2.MotionSequence(time_us=[1], width=2, values=[1.0]))
    with pytest.raises(InvalidInputError):
        converters.voice_from_proto(evidence_pb2.VoiceSequence(step_us=1, width=2, values=[1.0]))
    with pytest.raises(InvalidInputError):
        converters.report_from_proto(evidence_pb2.BranchReport(branch=evidence_pb2.BRANCH_FRAME))
    with pytest.raises(InvalidInputError):
        converters.branch_from_proto(evidence_pb2.BRANCH_UNSPECIFIED)
