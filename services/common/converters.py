"""Shared values to protobuf and back. With each service's own converters, the only code that knows both."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from bonafide.v1 import evidence_pb2, media_pb2
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
from services.common.media import SAMPLE_RATE, AudioTrack, Frame, MediaInfo

Message = TypeVar("Message")


def branch_to_proto(branch: Branch) -> evidence_pb2.Branch.ValueType:
    """Branch to its enum value."""
    return evidence_pb2.Branch.Value(f"BRANCH_{branch.name}")


def branch_from_proto(value: evidence_pb2.Branch.ValueType) -> Branch:
    """Enum value to Branch.

    Raises:
        InvalidInputError: the value names no branch (reason UNKNOWN_BRANCH).
    """
    try:
        return Branch[evidence_pb2.Branch.Name(value).removeprefix("BRANCH_")]
    except (ValueError, KeyError) as error:
        raise InvalidInputError("options name a branch that does not exist", reason="UNKNOWN_BRANCH") from error


def reason_to_proto(reason: ReasonCode | None) -> evidence_pb2.ReasonCode.ValueType:
    """ReasonCode, or none, to its enum value."""
    name = "UNSPECIFIED" if reason is None else reason.name
    return evidence_pb2.ReasonCode.Value(f"REASON_CODE_{name}")


def reason_from_proto(value: evidence_pb2.ReasonCode.ValueType) -> ReasonCode | None:
    """Enum value to ReasonCode; None for unspecified and for codes newer than this build."""
    try:
        return ReasonCode[evidence_pb2.ReasonCode.Name(value).removeprefix("REASON_CODE_")]
    except (ValueError, KeyError):
        return None


def report_to_proto(report: BranchReport) -> evidence_pb2.BranchReport:
    """BranchReport to its message."""
    return evidence_pb2.BranchReport(
        branch=branch_to_proto(report.branch),
        outcome=evidence_pb2.Outcome.Value(f"OUTCOME_{report.outcome.name}"),
        reason=reason_to_proto(report.reason),
        score=report.score,
        milliseconds=report.milliseconds,
        model=report.model,
        features=dict(report.features),
        timeline=[
            evidence_pb2.ScorePoint(
                time_us=point.time_us,
                duration_us=point.duration_us,
                track_id=point.track_id,
                probability=point.probability,
            )
            for point in report.timeline
        ],
        budget_milliseconds=report.budget_milliseconds,
    )


def report_from_proto(message: evidence_pb2.BranchReport) -> BranchReport:
    """Message to BranchReport.

    Raises:
        InvalidInputError: branch or outcome are unknown.
    """
    try:
        outcome = Outcome[evidence_pb2.Outcome.Name(message.outcome).removeprefix("OUTCOME_")]
    except (ValueError, KeyError) as error:
        raise InvalidInputError("a branch report has no known outcome", reason="UNKNOWN_OUTCOME") from error
    return BranchReport(
        branch=branch_from_proto(message.branch),
        outcome=outcome,
        reason=reason_from_proto(message.reason),
        score=message.score if message.HasField("score") else None,
        milliseconds=message.milliseconds,
        model=message.model,
        features=dict(message.features),
        timeline=tuple(
            ScorePoint(point.time_us, point.duration_us, point.track_id, point.probability)
            for point in message.timeline
        ),
        budget_milliseconds=message.budget_milliseconds,
    )


def model_to_proto(model: ModelInfo) -> evidence_pb2.ModelInfo:
    """ModelInfo to its message."""
    return evidence_pb2.ModelInfo(
        name=model.name,
        version=model.version,
        sha256=model.sha256,
        engine=model.engine,
        candidate=model.candidate,
    )


def model_from_proto(message: evidence_pb2.ModelInfo) -> ModelInfo:
    """Message to ModelInfo."""
    return ModelInfo(message.name, message.version, message.sha256, message.engine, message.candidate)


def frame_from_proto(message: media_pb2.VideoFrame) -> Frame:
    """Message to Frame; the pixels are a read-only view of the message's bytes.

    Raises:
        InvalidInputError: the bytes are not 3 * width * height (reason BAD_FRAME).
    """
    if message.width < 1 or message.height < 1 or len(message.rgb) != 3 * message.width * message.height:
        raise InvalidInputError("a frame's bytes do not match its size", reason="BAD_FRAME")
    pixels = np.frombuffer(message.rgb, dtype=np.uint8).reshape(message.height, message.width, 3)
    return Frame(message.time_us, pixels)


def audio_to_proto(audio: AudioTrack) -> media_pb2.AudioTrack:
    """AudioTrack to its message."""
    samples = np.ascontiguousarray(audio.samples, dtype="<f4").tobytes()
    return media_pb2.AudioTrack(start_us=audio.start_us, sample_rate=SAMPLE_RATE, samples=samples)


def audio_from_proto(message: media_pb2.AudioTrack) -> AudioTrack:
    """Message to AudioTrack.

    Raises:
        InvalidInputError: wrong sample rate, broken length, or samples that are not finite (BAD_AUDIO).
    """
    if message.sample_rate != SAMPLE_RATE or len(message.samples) % 4:
        raise InvalidInputError("sound must be 32-bit float samples at 16000 Hz", reason="BAD_AUDIO")
    samples = np.frombuffer(message.samples, dtype="<f4")
    if not np.isfinite(samples).all():
        raise InvalidInputError("sound holds samples that are not numbers", reason="BAD_AUDIO")
    return AudioTrack(message.start_us, samples)


def media_to_proto(info: MediaInfo) -> media_pb2.MediaInfo:
    """MediaInfo to its message."""
    return media_pb2.MediaInfo(
        container=info.container,
        video_codec=info.video_codec,
        audio_codec=info.audio_codec,
        width=info.width,
        height=info.height,
        frame_rate=info.frame_rate,
        duration_us=info.duration_us,
        rotation_degrees=info.rotation_degrees,
        size_bytes=info.size_bytes,
        sha256=info.sha256,
        frames_sampled=info.frames_sampled,
        partial=info.partial,
        still=info.still,
        interrupted=info.interrupted,
    )


def track_to_proto(track: FaceTrack) -> evidence_pb2.FaceTrack:
    """FaceTrack to its message."""
    behaviour = track.behaviour
    return evidence_pb2.FaceTrack(
        track_id=track.track_id,
        start_us=track.start_us,
        end_us=track.end_us,
        box=list(track.box),
        face_size=track.face_size,
        detections=track.detections,
        behaviour=evidence_pb2.Behaviour(
            blinks=behaviour.blinks,
            blinks_per_minute=behaviour.blinks_per_minute,
            eye_aspect_mean=behaviour.eye_aspect_mean,
            eye_aspect_deviation=behaviour.eye_aspect_deviation,
            landmark_jitter=behaviour.landmark_jitter,
            observed_seconds=behaviour.observed_seconds,
            eye_aspect=[
                evidence_pb2.EyeAspect(time_us=time_us, ratio=ratio) for time_us, ratio in behaviour.eye_aspect
            ],
        ),
    )


def track_from_proto(message: evidence_pb2.FaceTrack) -> FaceTrack:
    """Message to FaceTrack.

    Raises:
        InvalidInputError: the box has not four sides.
    """
    if len(message.box) != 4:  # noqa: PLR2004 - left, top, right, bottom
        raise InvalidInputError("a face box has not four sides", reason="BAD_TRACK")
    left, top, right, bottom = message.box
    found = message.behaviour
    return FaceTrack(
        track_id=message.track_id,
        start_us=message.start_us,
        end_us=message.end_us,
        box=(left, top, right, bottom),
        face_size=message.face_size,
        detections=message.detections,
        behaviour=Behaviour(
            blinks=found.blinks if found.HasField("blinks") else None,
            blinks_per_minute=found.blinks_per_minute if found.HasField("blinks_per_minute") else None,
            eye_aspect_mean=found.eye_aspect_mean if found.HasField("eye_aspect_mean") else None,
            eye_aspect_deviation=found.eye_aspect_deviation if found.HasField("eye_aspect_deviation") else None,
            landmark_jitter=found.landmark_jitter if found.HasField("landmark_jitter") else None,
            observed_seconds=found.observed_seconds,
            eye_aspect=tuple((sample.time_us, sample.ratio) for sample in found.eye_aspect),
        ),
    )


def motion_to_proto(motion: MotionSequence) -> evidence_pb2.MotionSequence:
    """MotionSequence to its message."""
    return evidence_pb2.MotionSequence(
        track_id=motion.track_id,
        time_us=motion.time_us,
        width=motion.values.shape[1],
        values=motion.values.ravel().tolist(),
    )


def motion_from_proto(message: evidence_pb2.MotionSequence) -> MotionSequence:
    """Message to MotionSequence.

    Raises:
        InvalidInputError: the values do not fill their rows.
    """
    rows = len(message.time_us)
    if len(message.values) != rows * message.width:
        raise InvalidInputError("a motion sequence does not fill its rows", reason="BAD_MOTION")
    values = np.asarray(message.values, dtype=np.float32).reshape(rows, message.width)
    return MotionSequence(message.track_id, tuple(message.time_us), values)


def voice_to_proto(voice: VoiceSequence) -> evidence_pb2.VoiceSequence:
    """VoiceSequence to its message."""
    return evidence_pb2.VoiceSequence(
        start_us=voice.start_us,
        step_us=voice.step_us,
        width=voice.values.shape[1],
        values=voice.values.ravel().tolist(),
    )


def voice_from_proto(message: evidence_pb2.VoiceSequence) -> VoiceSequence:
    """Message to VoiceSequence.

    Raises:
        InvalidInputError: the values do not fill their rows, or the rate is not positive.
    """
    if message.width < 1 or message.step_us < 1 or len(message.values) % message.width:
        raise InvalidInputError("a voice sequence does not fill its rows", reason="BAD_VOICE")
    values = np.asarray(message.values, dtype=np.float32).reshape(-1, message.width)
    return VoiceSequence(message.start_us, message.step_us, values)


def window_to_proto(window: SpeechWindow) -> evidence_pb2.SpeechWindow:
    """SpeechWindow to its message."""
    return evidence_pb2.SpeechWindow(
        start_us=window.start_us, end_us=window.end_us, speech_fraction=window.speech_fraction
    )


def window_from_proto(message: evidence_pb2.SpeechWindow) -> SpeechWindow:
    """Message to SpeechWindow."""
    return SpeechWindow(message.start_us, message.end_us, message.speech_fraction)
