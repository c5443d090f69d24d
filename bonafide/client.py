"""The client: a clip in, an ``Analysis`` out.

with Client() as client:
analysis = client.analyze("clip.mp4")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import grpc

from bonafide.analysis import Analysis, Progress, analysis_from_proto, progress_from_proto
from bonafide.v1 import analysis_pb2, analysis_pb2_grpc
from services.common.converters import branch_to_proto, report_from_proto
from services.common.evidence import Branch, BranchReport
from services.common.status import error_reason

DEFAULT_ADDRESS = "127.0.0.1:8500"
"""Where ``bonafide up`` listens."""

DEFAULT_TIMEOUT_SECONDS = 600.0
CHUNK_BYTES = 128 * 1024
"""Bytes a message of an upload; 64 to 256 KiB were measured fastest."""

Event = Progress | BranchReport
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_BAD_INPUT = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}


class ClientError(Exception):
    """A call that failed: gRPC status code by name, machine-readable reason, one sentence."""

    def __init__(self, message: str, *, code: str, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason


class BadInputError(ClientError):
    """The clip or the options cannot be analysed; trying again gives the same answer."""


class ServerUnreachableError(ClientError):
    """Nobody answers at the address; trying again may help."""


class AnalysisFailedError(ClientError):
    """The server answered, but could not finish (at its limit, out of time, or failed)."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in service, with what its card says."""

    name: str
    version: str
    sha256: str
    trained_on: str
    headline: str
    licence: str


class Client:
    """A connection to one gateway; usable from one thread at a time; a context manager."""

    def __init__(self, address: str = DEFAULT_ADDRESS) -> None:
        self._address = address
        self._channel = grpc.insecure_channel(
            address,
            options=[("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)],
        )
        self._stub = analysis_pb2_grpc.AnalysisServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def analyze(
        self,
        clip: Path | str | BinaryIO,
        *,
        name: str = "",
        branches: Sequence[Branch] = (),
        policy: str = "",
        request_id: str = "",
        on_event: Callable[[Event], None] | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
    ) -> Analysis:
        """Send one clip and wait for its analysis.

        Args:
            clip: path of a video, sound or picture, or a binary file open at its first byte.
            name: shown name of the clip; the path's own when empty.
            branches: branches to run; all when empty.
            policy: name of the decision policy; the server's default when empty.
            request_id: id to be echoed, up to 128 printable characters; the server makes one when empty.
            on_event: called with progress and with each branch's report as they arrive.
            timeout: seconds the whole call may take.

        Raises:
            BadInputError: the file cannot be read, or the server refuses it.
            ServerUnreachableError: the server cannot be reached.
            AnalysisFailedError: the server could not finish.
        """
        if isinstance(clip, (str, Path)):
            path = Path(clip)
            with _open(path) as file:
                return self.analyze(
                    file,
                    name=name or path.name,
                    branches=branches,
                    policy=policy,
                    request_id=request_id,
                    on_event=on_event,
                    timeout=timeout,
                )
        options = analysis_pb2.AnalyzeOptions(
            request_id=request_id,
            file_name=name,
            size_bytes=_size(clip),
            branches=[branch_to_proto(branch) for branch in branches],
            policy=policy,
        )
        try:
            return _last(self._stub.Analyze(_upload(options, clip), timeout=timeout), on_event)
        except grpc.RpcError as error:
            raise self._error(error) from error

    def models(self, *, timeout: float = 10.0) -> list[ServedModel]:
        """The models in service, by name.

        Raises:
            ServerUnreachableError: the server cannot be reached.
            AnalysisFailedError: the server could not answer.
        """
        try:
            answer = self._stub.ListModels(analysis_pb2.ListModelsRequest(), timeout=timeout)
        except grpc.RpcError as error:
            raise self._error(error) from error
        return [
            ServedModel(card.name, card.version, card.sha256, card.trained_on, card.headline, card.licence)
            for card in answer.models
        ]

    def _error(self, error: grpc.RpcError) -> ClientError:
        code = error.code()
        kind: type[ClientError] = AnalysisFailedError
        message = error.details() or "no details"
        if code in _BAD_INPUT:
            kind = BadInputError
        elif code is grpc.StatusCode.UNAVAILABLE:
            kind = ServerUnreachableError
            message = f"no server answers at {self._address} (start one with: bonafide up)"
        return kind(message, code=code.name, reason=error_reason(error))


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        text = f"cannot be read: {error.strerror}"
        raise BadInputError(text, code="INVALID_ARGUMENT", reason="UNREADABLE_FILE") from error


def _size(file: BinaryIO) -> int:
    """Bytes left in a file, 0 when it cannot be known beforehand."""
    if not file.seekable():
        return 0
    here = file.tell()
    size = file.seek(0, 2) - here
    file.seek(here)
    return size


def _upload(options: analysis_pb2.AnalyzeOptions, file: BinaryIO) -> Iterator[analysis_pb2.AnalyzeRequest]:
    yield analysis_pb2.AnalyzeRequest(options=options)
    while chunk := file.read(CHUNK_BYTES):
        yield analysis_pb2.AnalyzeRequest(chunk=chunk)


def _last(responses: Iterator[analysis_pb2.AnalyzeResponse], on_event: Callable[[Event], None] | None) -> Analysis:
    analysis: Analysis | None = None
    for response in responses:
        match response.WhichOneof("event"):
            case "analysis":
                analysis = analysis_from_proto(response.analysis)
            case "progress" if on_event is not None:
                on_event(progress_from_proto(response.progress))
            case "branch" if on_event is not None:
                on_event(report_from_proto(response.branch))
    if analysis is None:
        text = "the server ended without an analysis"
        raise AnalysisFailedError(text, code="INTERNAL", reason="NO_ANALYSIS")
    return analysis
