"""Between the contract's messages and what a caller holds. Shared by both clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import TypedDict

from bonafide.analysis import Analysis, Event, ServedModel, analysis_from_proto, progress_from_proto
from bonafide.errors import AnalysisFailedError
from bonafide.uploads import Upload
from bonafide.v1 import analysis_pb2
from services.common.converters import branch_to_proto, report_from_proto
from services.common.errors import BonafideError
from services.common.evidence import Branch


class Options(TypedDict, total=False):
    """What to do with a clip; all of it optional.

    Keys:
        name: shown name of the clip; the file's own when absent.
        branches: branches to run; all when absent.
        policy: name of the decision policy; the server's default when absent.
        request_id: id of this request, up to 128 printable characters; the client makes one when absent.
    """

    name: str
    branches: Sequence[Branch]
    policy: str
    request_id: str


def options_message(options: Options, upload: Upload) -> analysis_pb2.AnalyzeOptions:
    """The first message of an upload; its ``request_id`` stays the same from try to try."""
    return analysis_pb2.AnalyzeOptions(
        request_id=options.get("request_id") or uuid.uuid4().hex,
        file_name=options.get("name") or upload.name,
        size_bytes=upload.size,
        branches=[branch_to_proto(branch) for branch in options.get("branches", ())],
        policy=options.get("policy", ""),
    )


def requests(options: analysis_pb2.AnalyzeOptions, chunks: Iterator[bytes]) -> Iterator[analysis_pb2.AnalyzeRequest]:
    """The messages of one upload."""
    yield analysis_pb2.AnalyzeRequest(options=options)
    for chunk in chunks:
        yield analysis_pb2.AnalyzeRequest(chunk=chunk)


def event_from_proto(response: analysis_pb2.AnalyzeResponse) -> Event | Analysis | None:
    """An event of an analysis; None for a kind that is newer than this client.

    Raises:
        AnalysisFailedError: the server speaks of things that this client does not know.
    """
    try:
        match response.WhichOneof("event"):
            case "analysis":
                return analysis_from_proto(response.analysis)
            case "progress":
                return progress_from_proto(response.progress)
            case "branch":
                return report_from_proto(response.branch)
    except (BonafideError, ValueError, KeyError) as error:
        text = "the server's answer is newer than this client"
        raise AnalysisFailedError(text, code="INTERNAL", reason="UNREADABLE_ANSWER") from error
    return None


def finished(analysis: Analysis | None) -> Analysis:
    """The analysis with which the events ended.

    Raises:
        AnalysisFailedError: they ended without one.
    """
    if analysis is None:
        text = "the server ended without an analysis"
        raise AnalysisFailedError(text, code="INTERNAL", reason="NO_ANALYSIS")
    return analysis


def models_from_proto(answer: analysis_pb2.ListModelsResponse) -> list[ServedModel]:
    """The models in service, by name."""
    return [
        ServedModel(card.name, card.version, card.sha256, card.trained_on, card.headline, card.licence)
        for card in answer.models
    ]
