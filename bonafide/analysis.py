"""The answer to one clip, as a caller holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from bonafide.v1 import analysis_pb2, fusion_pb2, media_pb2
from services.common.converters import (
    model_from_proto,
    reason_from_proto,
    report_from_proto,
    track_from_proto,
    window_from_proto,
)
from services.common.evidence import (
    BranchReport,
    Contribution,
    FaceTrack,
    ModelInfo,
    PolicyInfo,
    ReasonCode,
    SpeechWindow,
    Verdict,
)
from services.common.media import MediaInfo


class Stage(StrEnum):
    """A step of the pipeline."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    DECODING = "decoding"
    ANALYZING = "analyzing"
    FUSING = "fusing"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Progress:
    """The step that has begun and the share of the whole that is done, [0, 100]."""

    stage: Stage
    percent: float


Event = Progress | BranchReport
"""What a caller hears while an analysis runs."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in service, with what its card says."""

    name: str
    version: str
    sha256: str
    trained_on: str
    headline: str
    licence: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """Verdict, ledger and evidence of one clip; the contract's ``Analysis`` explains every field."""

    request_id: str
    verdict: Verdict
    probability: float | None
    reasons: tuple[ReasonCode, ...]
    branches: tuple[BranchReport, ...]
    contributions: tuple[Contribution, ...]
    policy: PolicyInfo
    media: MediaInfo
    tracks: tuple[FaceTrack, ...]
    tracks_skipped: int
    windows: tuple[SpeechWindow, ...]
    speech_fraction: float | None
    models: tuple[ModelInfo, ...]
    timings: Mapping[Stage, float]
    """Wall time of each stage, milliseconds."""
    cached: bool = False
    """Answered from an earlier analysis of the same bytes."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values ready for JSON; the ledger is keyed by branch name."""
        plain = asdict(self)
        plain["branches"] = {report.pop("branch"): report for report in plain["branches"]}
        return plain


def progress_from_proto(message: analysis_pb2.Progress) -> Progress:
    """Message to Progress."""
    return Progress(_stage(message.stage), message.percent)


def analysis_from_proto(message: analysis_pb2.Analysis) -> Analysis:
    """Message to Analysis.

    Raises:
        InvalidInputError: the message holds a branch or an outcome that this client does not know.
    """
    reasons = (reason_from_proto(value) for value in message.reasons)
    policy = message.policy
    return Analysis(
        request_id=message.request_id,
        verdict=Verdict[fusion_pb2.Verdict.Name(message.verdict).removeprefix("VERDICT_")],
        probability=message.probability if message.HasField("probability") else None,
        reasons=tuple(reason for reason in reasons if reason is not None),
        branches=tuple(report_from_proto(report) for report in message.branches),
        contributions=tuple(Contribution(part.feature, part.value, part.log_odds) for part in message.contributions),
        policy=PolicyInfo(
            policy.name, policy.deepfake_threshold, policy.authentic_threshold, policy.false_positive_bound
        ),
        media=_media(message.media),
        tracks=tuple(track_from_proto(track) for track in message.tracks),
        tracks_skipped=message.tracks_skipped,
        windows=tuple(window_from_proto(window) for window in message.windows),
        speech_fraction=message.speech_fraction if message.HasField("speech_fraction") else None,
        models=tuple(model_from_proto(model) for model in message.models),
        timings={_stage(timing.stage): timing.milliseconds for timing in message.timings},
        cached=message.cached,
    )


def _stage(value: analysis_pb2.Stage.ValueType) -> Stage:
    return Stage[analysis_pb2.Stage.Name(value).removeprefix("STAGE_")]


def _media(message: media_pb2.MediaInfo) -> MediaInfo:
    return MediaInfo(
        container=message.container,
        video_codec=message.video_codec,
        audio_codec=message.audio_codec,
        width=message.width,
        height=message.height,
        frame_rate=message.frame_rate,
        duration_us=message.duration_us,
        rotation_degrees=message.rotation_degrees,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        frames_sampled=message.frames_sampled,
        partial=message.partial,
        interrupted=message.interrupted,
        still=message.still,
    )
