"""Audio's messages to its own types and back."""

from __future__ import annotations

from bonafide.v1 import audio_pb2
from services.common.converters import (
    branch_from_proto,
    model_to_proto,
    report_to_proto,
    voice_to_proto,
    window_to_proto,
)
from services.common.evidence import AudioEvidence, Branch


def branches_from_proto(request: audio_pb2.AnalyzeSpeechRequest) -> frozenset[Branch]:
    """Branches that the caller asks for; empty means all.

    Raises:
        InvalidInputError: the request names a branch that does not exist.
    """
    return frozenset(branch_from_proto(branch) for branch in request.branches)


def evidence_to_proto(evidence: AudioEvidence) -> audio_pb2.AnalyzeSpeechResponse:
    """AudioEvidence to AnalyzeSpeechResponse."""
    return audio_pb2.AnalyzeSpeechResponse(
        reports=[report_to_proto(report) for report in evidence.reports],
        windows=[window_to_proto(window) for window in evidence.windows],
        speech_fraction=evidence.speech_fraction,
        voice=voice_to_proto(evidence.voice) if evidence.voice is not None else None,
        models=[model_to_proto(model) for model in evidence.models],
    )
