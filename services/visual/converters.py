"""Visual requests and evidence, protobuf to our own types and back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from bonafide.v1 import visual_pb2
from services.common.converters import (
    branch_from_proto,
    frame_from_proto,
    model_to_proto,
    motion_to_proto,
    report_to_proto,
    track_to_proto,
)
from services.common.errors import InvalidInputError
from services.common.evidence import VISUAL_BRANCHES, Branch, VisualEvidence
from services.common.media import Frame


@dataclass(frozen=True, slots=True)
class VisualRequest:
    """The pictures of one clip, the branches to score, and the hash of the clip's file, where it is known."""

    survey: tuple[Frame, ...]
    dense: tuple[Frame, ...]
    branches: frozenset[Branch]
    content: str = ""


def request_from_proto(message: visual_pb2.AnalyzeFacesRequest) -> VisualRequest:
    """Message to request; no branch named means all visual ones.

    Raises:
        InvalidInputError: a frame is broken, frames are out of order, or a branch is not a visual one.
    """
    branches = frozenset(branch_from_proto(value) for value in message.branches) or frozenset(VISUAL_BRANCHES)
    if not branches <= set(VISUAL_BRANCHES):
        raise InvalidInputError("a branch that is not a visual one was asked for", reason="UNKNOWN_BRANCH")
    survey, dense = (tuple(frame_from_proto(frame) for frame in frames) for frames in (message.survey, message.dense))
    for frames in (survey, dense):
        if any(after.time_us < before.time_us for before, after in pairwise(frames)):
            raise InvalidInputError("frames are not in time order", reason="BAD_FRAME")
    return VisualRequest(survey, dense, branches, message.content_sha256)


def evidence_to_proto(evidence: VisualEvidence) -> visual_pb2.AnalyzeFacesResponse:
    """VisualEvidence to its message."""
    return visual_pb2.AnalyzeFacesResponse(
        reports=[report_to_proto(report) for report in evidence.reports],
        tracks=[track_to_proto(track) for track in evidence.tracks],
        tracks_skipped=evidence.tracks_skipped,
        motions=[motion_to_proto(motion) for motion in evidence.motions],
        models=[model_to_proto(model) for model in evidence.models],
    )
