"""Between the contract's messages and what a caller holds. Shared by both clients."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypedDict

from bonafide.analysis import Analysis, Event, ServedModel, analysis_from_proto, progress_from_proto
from bonafide.errors import AnalysisFailedError, BadInputError, ClientError, from_status
from bonafide.uploads import Upload, Uploaded, Uri
from bonafide.v1 import analysis_pb2, upload_pb2
from services.common.converters import branch_to_proto, report_from_proto
from services.common.errors import BonafideError
from services.common.evidence import Branch


class Priority(Enum):
    """A lane: while requests wait, an earlier one is served before a later one."""

    UNSPECIFIED = 0
    INTERACTIVE = 1
    BATCH = 2
    BACKFILL = 3


class Options(TypedDict, total=False):
    """What to do with a clip; all of it optional.

    Keys:
        name: shown name of the clip; the file's own when absent.
        branches: branches to run; all when absent.
        policy: name of the decision policy; the server's default when absent.
        request_id: id of this request, up to 128 printable characters; the client makes one when absent.
        priority: lane in which it waits.
        sha256: hash of the file, lower-case hex; bytes that do not match it are refused.
    """

    name: str
    branches: Sequence[Branch]
    policy: str
    request_id: str
    priority: Priority
    sha256: str


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The end of one item of a batch: its place, and an analysis or the error that it ended with."""

    index: int
    request_id: str
    analysis: Analysis | None
    error: ClientError | None


def options_message(options: Options, upload: Upload) -> analysis_pb2.AnalyzeOptions:
    """The first message of an upload; its ``request_id`` stays the same from try to try."""
    return analysis_pb2.AnalyzeOptions(
        request_id=options.get("request_id") or uuid.uuid4().hex,
        file_name=options.get("name") or upload.name,
        size_bytes=upload.size,
        branches=[branch_to_proto(branch) for branch in options.get("branches", ())],
        policy=options.get("policy", ""),
        priority=analysis_pb2.Priority.Value(f"PRIORITY_{options.get('priority', Priority.UNSPECIFIED).name}"),
        sha256=options.get("sha256", ""),
        upload_id=upload.clip.upload_id if isinstance(upload.clip, Uploaded) else "",
    )


def requests(options: analysis_pb2.AnalyzeOptions, chunks: Iterator[bytes]) -> Iterator[analysis_pb2.AnalyzeRequest]:
    """The messages of one upload."""
    yield analysis_pb2.AnalyzeRequest(options=options)
    for chunk in chunks:
        yield analysis_pb2.AnalyzeRequest(chunk=chunk)


def event_from_proto(
    response: analysis_pb2.AnalyzeResponse | analysis_pb2.AnalyzeUriResponse,
) -> Event | Analysis | None:
    """An event of an analysis; None for a kind that is newer than this client.

    Raises:
        AnalysisFailedError: the server speaks of things that this client does not know.
    """
    try:
        match response.WhichOneof("event"):
            case "analysis":
                return readable(response.analysis)
            case "progress":
                return progress_from_proto(response.progress)
            case "branch":
                return report_from_proto(response.branch)
    except (BonafideError, ValueError, KeyError) as error:
        raise _newer() from error
    return None


def readable(message: analysis_pb2.Analysis) -> Analysis:
    """An analysis.

    Raises:
        AnalysisFailedError: the server speaks of things that this client does not know.
    """
    try:
        return analysis_from_proto(message)
    except (BonafideError, ValueError, KeyError) as error:
        raise _newer() from error


def _newer() -> AnalysisFailedError:
    text = "the server's answer is newer than this client"
    return AnalysisFailedError(text, code="INTERNAL", reason="UNREADABLE_ANSWER")


def stretch(state: upload_pb2.Upload, upload: Upload) -> Iterator[upload_pb2.SendChunksRequest]:
    """The messages that send what an upload still lacks."""
    start = upload_pb2.UploadStart(upload_id=state.upload_id, offset=state.received_bytes)
    yield upload_pb2.SendChunksRequest(start=start)
    for chunk in upload.chunks(state.received_bytes):
        yield upload_pb2.SendChunksRequest(chunk=chunk)


def new_upload(upload: Upload) -> upload_pb2.CreateUploadRequest:
    """The announcement of a file.

    Raises:
        BadInputError: its size cannot be known beforehand, or it is not a file of this side.
    """
    if not upload.size:
        text = "only a file of known size, and not an empty one, can be uploaded in pieces"
        raise BadInputError(text, code="INVALID_ARGUMENT", reason="UNKNOWN_SIZE")
    return upload_pb2.CreateUploadRequest(size_bytes=upload.size)


def kept(answer: upload_pb2.SendChunksResponse) -> upload_pb2.Upload:
    """The upload after all that this side has was sent.

    Raises:
        BadInputError: that was less than was announced.
    """
    if not answer.upload.complete:
        text = "the file became shorter while it was being read"
        raise BadInputError(text, code="INVALID_ARGUMENT", reason="UNREADABLE_FILE")
    return answer.upload


def resumable(error: ClientError) -> ClientError:
    """The same error; that an offset was not the right one is answered by asking for it."""
    if error.code == "OUT_OF_RANGE":
        error.retryable = True
    return error


def batch_item(clip: Uploaded | Uri, options: Options) -> analysis_pb2.BatchItem:
    """One item of a batch, with an id of its own."""
    message = options_message({**options, "request_id": ""}, Upload(clip))
    return analysis_pb2.BatchItem(options=message, uri=clip.uri if isinstance(clip, Uri) else "")


class Batch:
    """What is still to be answered of a batch; a try asks only for that, under the same ids."""

    def __init__(self, items: Sequence[analysis_pb2.BatchItem]) -> None:
        self._open = dict(enumerate(items))
        self._asked: list[int] = []

    def request(self) -> analysis_pb2.BatchAnalyzeRequest:
        """The request of the next try."""
        self._asked = list(self._open)
        return analysis_pb2.BatchAnalyzeRequest(items=self._open.values())

    def result(self, response: analysis_pb2.BatchAnalyzeResponse) -> BatchResult:
        """The result that a response stands for, at its place in the whole batch."""
        index = self._asked[response.index]
        del self._open[index]
        if response.status.code == 0:
            return BatchResult(index, response.request_id, readable(response.analysis), None)
        return BatchResult(index, response.request_id, None, from_status(response.status))

    def ended(self) -> None:
        """Note that a try ended well.

        Raises:
            AnalysisFailedError: not everything that it asked for was answered.
        """
        if self._open:
            text = "the server ended without an answer for every item"
            raise AnalysisFailedError(text, code="INTERNAL", reason="NO_ANALYSIS")

    @property
    def whole(self) -> bool:
        """Whether every item has been answered."""
        return not self._open


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
