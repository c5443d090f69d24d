"""The gateway's messages to its own types and back."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import TypeVar

from bonafide.v1 import analysis_pb2, audio_pb2, fusion_pb2, visual_pb2
from services.common.converters import (
    audio_to_proto,
    branch_from_proto,
    branch_to_proto,
    media_to_proto,
    model_from_proto,
    model_to_proto,
    motion_from_proto,
    motion_to_proto,
    reason_from_proto,
    reason_to_proto,
    report_from_proto,
    report_to_proto,
    track_from_proto,
    track_to_proto,
    voice_from_proto,
    voice_to_proto,
    window_from_proto,
    window_to_proto,
)
from services.common.errors import InvalidInputError
from services.common.evidence import (
    AudioEvidence,
    Branch,
    Contribution,
    FusionResult,
    PolicyInfo,
    Verdict,
    VisualEvidence,
)
from services.common.media import AudioTrack
from services.common.models import ModelCard
from services.common.status import rpc_status_of
from services.gateway.analysis import Analysis, Case, Event, Options, Priority, Progress, Stage
from services.gateway.batch import Ending

MAX_CHUNK_BYTES = 1 << 20


def opening_from_proto(message: analysis_pb2.AnalyzeRequest | None) -> analysis_pb2.AnalyzeOptions:
    """The options that open an upload.

    Raises:
        InvalidInputError: the first message is not options (OPTIONS_MISSING).
    """
    if message is None or message.WhichOneof("payload") != "options":
        raise InvalidInputError("the first message of an upload must be its options", reason="OPTIONS_MISSING")
    return message.options


def options_from_proto(options: analysis_pb2.AnalyzeOptions, *, lane: Priority = Priority.INTERACTIVE) -> Options:
    """Options; makes an id when the caller gives none. ``lane`` is where a request goes that names none.

    Raises:
        InvalidInputError: a branch or the priority does not exist (UNKNOWN_BRANCH, UNKNOWN_PRIORITY).
    """
    return Options(
        request_id=options.request_id or uuid.uuid4().hex,
        size_bytes=options.size_bytes,
        branches=frozenset(branch_from_proto(value) for value in options.branches) or frozenset(Branch),
        policy=options.policy,
        priority=_priority(options.priority) or lane,
        sha256=options.sha256,
    )


def _priority(value: analysis_pb2.Priority.ValueType) -> Priority | None:
    if value == analysis_pb2.PRIORITY_UNSPECIFIED:
        return None
    try:
        return Priority[analysis_pb2.Priority.Name(value).removeprefix("PRIORITY_")]
    except (ValueError, KeyError) as error:
        raise InvalidInputError("options name a priority that does not exist", reason="UNKNOWN_PRIORITY") from error


async def chunks_from_proto(messages: AsyncIterator[analysis_pb2.AnalyzeRequest]) -> AsyncIterator[bytes]:
    """The bytes of the messages that follow.

    Raises:
        InvalidInputError: a message is no chunk, or not of 1 byte to 1 MiB (INVALID_CHUNK).
    """
    async for message in messages:
        if message.WhichOneof("payload") != "chunk" or not 0 < len(message.chunk) <= MAX_CHUNK_BYTES:
            raise InvalidInputError("after the options come chunks of 1 byte to 1 MiB", reason="INVALID_CHUNK")
        yield message.chunk


Answer = TypeVar("Answer", analysis_pb2.AnalyzeResponse, analysis_pb2.AnalyzeUriResponse)


def event_to_proto(event: Event, answer: type[Answer]) -> Answer:
    """Any event to its message, which differs only in name between the calls."""
    if isinstance(event, Progress):
        return answer(progress=analysis_pb2.Progress(stage=_stage(event.stage), percent=event.percent))
    if isinstance(event, Analysis):
        return answer(analysis=analysis_to_proto(event))
    return answer(branch=report_to_proto(event))


def ending_to_proto(ending: Ending) -> analysis_pb2.BatchAnalyzeResponse:
    """The end of one item of a batch to its message."""
    answer = analysis_pb2.BatchAnalyzeResponse(index=ending.index, request_id=ending.request_id)
    if isinstance(ending.outcome, Analysis):
        answer.status.SetInParent()
        answer.analysis.CopyFrom(analysis_to_proto(ending.outcome))
    else:
        answer.status.CopyFrom(rpc_status_of(ending.outcome))
    return answer


def analysis_to_proto(analysis: Analysis) -> analysis_pb2.Analysis:
    """Analysis to its message."""
    fusion, visual, audio = analysis.fusion, analysis.evidence.visual, analysis.evidence.audio
    return analysis_pb2.Analysis(
        request_id=analysis.request_id,
        verdict=fusion_pb2.Verdict.Value(f"VERDICT_{fusion.verdict.name}"),
        probability=fusion.probability if fusion.verdict is not Verdict.INCONCLUSIVE else None,
        reasons=[reason_to_proto(reason) for reason in analysis.reasons],
        branches=[report_to_proto(report) for report in analysis.branches],
        contributions=[
            fusion_pb2.Contribution(feature=part.feature, value=part.value, log_odds=part.log_odds)
            for part in fusion.contributions
        ],
        policy=fusion_pb2.PolicyInfo(
            name=fusion.policy.name,
            deepfake_threshold=fusion.policy.deepfake_threshold,
            authentic_threshold=fusion.policy.authentic_threshold,
            false_positive_bound=fusion.policy.false_positive_bound,
        ),
        media=media_to_proto(analysis.media),
        tracks=[track_to_proto(track) for track in visual.tracks] if visual is not None else [],
        tracks_skipped=visual.tracks_skipped if visual is not None else 0,
        windows=[window_to_proto(window) for window in audio.windows] if audio is not None else [],
        speech_fraction=audio.speech_fraction if audio is not None else None,
        models=[model_to_proto(model) for model in analysis.models],
        timings=[
            analysis_pb2.StageTiming(
                stage=_stage(time.stage), milliseconds=time.milliseconds, budget_milliseconds=time.budget_milliseconds
            )
            for time in analysis.timings
        ],
        cached=analysis.cached,
    )


def card_to_proto(card: ModelCard) -> analysis_pb2.ModelCard:
    """ModelCard to its short form."""
    return analysis_pb2.ModelCard(
        name=card.name,
        version=card.version,
        sha256=card.sha256,
        trained_on=card.trained_on,
        headline=card.headline,
        licence=card.licence,
    )


def visual_from_proto(message: visual_pb2.AnalyzeFacesResponse) -> VisualEvidence:
    """What the visual service answered.

    Raises:
        InvalidInputError: the answer contradicts the contract.
    """
    return VisualEvidence(
        reports=tuple(report_from_proto(report) for report in message.reports),
        tracks=tuple(track_from_proto(track) for track in message.tracks),
        tracks_skipped=message.tracks_skipped,
        motions=tuple(motion_from_proto(motion) for motion in message.motions),
        models=tuple(model_from_proto(model) for model in message.models),
    )


def speech_request(audio: AudioTrack, branches: frozenset[Branch], content: str = "") -> audio_pb2.AnalyzeSpeechRequest:
    """What the audio service is asked of the file with a hash."""
    return audio_pb2.AnalyzeSpeechRequest(
        audio=audio_to_proto(audio),
        branches=[branch_to_proto(branch) for branch in sorted(branches)],
        content_sha256=content,
    )


def audio_evidence_from_proto(message: audio_pb2.AnalyzeSpeechResponse) -> AudioEvidence:
    """What the audio service answered.

    Raises:
        InvalidInputError: the answer contradicts the contract.
    """
    return AudioEvidence(
        reports=tuple(report_from_proto(report) for report in message.reports),
        windows=tuple(window_from_proto(window) for window in message.windows),
        speech_fraction=message.speech_fraction,
        voice=voice_from_proto(message.voice) if message.HasField("voice") else None,
        models=tuple(model_from_proto(model) for model in message.models),
    )


def fuse_request(case: Case) -> fusion_pb2.FuseRequest:
    """What the fusion service is asked."""
    voice = case.evidence.voice
    return fusion_pb2.FuseRequest(
        reports=[report_to_proto(report) for report in case.reports],
        motions=[motion_to_proto(motion) for motion in case.evidence.motions],
        voice=voice_to_proto(voice) if voice is not None else None,
        policy=case.policy,
        branches=[branch_to_proto(branch) for branch in sorted(case.branches)],
        content_sha256=case.content,
        models=[model_to_proto(model) for model in case.evidence.models],
    )


def fusion_from_proto(message: fusion_pb2.FuseResponse) -> FusionResult:
    """What the fusion service answered.

    Raises:
        InvalidInputError: the answer contradicts the contract.
    """
    try:
        verdict = Verdict[fusion_pb2.Verdict.Name(message.verdict).removeprefix("VERDICT_")]
    except (ValueError, KeyError) as error:
        raise InvalidInputError("fusion gave no known verdict", reason="UNKNOWN_VERDICT") from error
    reasons = (reason_from_proto(value) for value in message.reasons)
    policy = message.policy
    return FusionResult(
        verdict=verdict,
        probability=message.probability if message.HasField("probability") else None,
        reasons=tuple(reason for reason in reasons if reason is not None),
        contributions=tuple(Contribution(part.feature, part.value, part.log_odds) for part in message.contributions),
        sync=report_from_proto(message.sync),
        policy=PolicyInfo(
            policy.name, policy.deepfake_threshold, policy.authentic_threshold, policy.false_positive_bound
        ),
        models=tuple(model_from_proto(model) for model in message.models),
    )


def _stage(stage: Stage) -> analysis_pb2.Stage.ValueType:
    return analysis_pb2.Stage.Value(f"STAGE_{stage.name}")
