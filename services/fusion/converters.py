"""Fusion's messages to its own types and back."""

from __future__ import annotations

from bonafide.v1 import fusion_pb2
from services.common.converters import (
    branch_from_proto,
    model_from_proto,
    model_to_proto,
    motion_from_proto,
    reason_to_proto,
    report_from_proto,
    report_to_proto,
    voice_from_proto,
)
from services.common.evidence import FusionResult
from services.fusion.pipeline import FusionInput


def input_from_proto(request: fusion_pb2.FuseRequest) -> FusionInput:
    """FuseRequest to FusionInput.

    Raises:
        InvalidInputError: a report, a sequence or a branch cannot be read.
    """
    return FusionInput(
        reports=tuple(report_from_proto(report) for report in request.reports),
        motions=tuple(motion_from_proto(motion) for motion in request.motions),
        voice=voice_from_proto(request.voice) if request.HasField("voice") else None,
        policy=request.policy,
        branches=frozenset(branch_from_proto(branch) for branch in request.branches),
        models=tuple(model_from_proto(model) for model in request.models),
        content=request.content_sha256,
    )


def result_to_proto(result: FusionResult) -> fusion_pb2.FuseResponse:
    """FusionResult to FuseResponse."""
    return fusion_pb2.FuseResponse(
        verdict=fusion_pb2.Verdict.Value(f"VERDICT_{result.verdict.name}"),
        probability=result.probability,
        reasons=[reason_to_proto(reason) for reason in result.reasons],
        contributions=[
            fusion_pb2.Contribution(feature=part.feature, value=part.value, log_odds=part.log_odds)
            for part in result.contributions
        ],
        sync=report_to_proto(result.sync),
        policy=fusion_pb2.PolicyInfo(
            name=result.policy.name,
            deepfake_threshold=result.policy.deepfake_threshold,
            authentic_threshold=result.policy.authentic_threshold,
            false_positive_bound=result.policy.false_positive_bound,
        ),
        models=[model_to_proto(model) for model in result.models],
    )
