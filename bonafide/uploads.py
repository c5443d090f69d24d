"""A clip on its way to the server: opened, measured, cut into chunks, and read again for another try."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

from bonafide.errors import BadInputError, ClientError


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that lies at the server, as ``upload`` answers it; usable until it expires there."""

    upload_id: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Uri:
    """A clip that the server fetches itself: ``https://`` or ``s3://``, where its operator allows it."""

    uri: str


LocalClip = Path | str | bytes | BinaryIO
"""A path, the bytes themselves, or a binary file open at the clip's first byte."""

Clip = LocalClip | Uploaded | Uri
"""Whatever can be analysed."""

Sent = Callable[[int, int], None]
"""Called with the bytes handed to the connection so far, and those of the whole (0 when unknown)."""

CHUNK_BYTES = 256 * 1024
"""Bytes a message of an upload, chosen by measurement (``docs/upload.md``)."""

Item = TypeVar("Item")
_READ_AHEAD_CHUNKS = 8


class Upload:
    """One clip, readable once for each try; a context manager.

    What is not here but at the server, or to be fetched by it, has no bytes to send.

    Attributes:
        clip: what it was made of.
        name: name of the file, empty when it has none.
        size: bytes in all, 0 when it cannot be known beforehand.
        failure: what went wrong on this side while chunks were being read, if anything.
    """

    def __init__(self, clip: Clip, on_sent: Sent | None = None, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.clip = clip
        self._on_sent = on_sent
        self._chunk_bytes = chunk_bytes
        self._file: BinaryIO = io.BytesIO()
        self._start: int | None = None
        self._begun = False
        self._current = 0
        self._lock = threading.Lock()
        self.failure: Exception | None = None
        self.name = Path(clip).name if isinstance(clip, (str, Path)) else ""
        self.size = 0

    def __enter__(self) -> Self:
        """Open the clip.

        Raises:
            BadInputError: it cannot be read.
        """
        if isinstance(self.clip, (Uploaded, Uri)):
            self._start = 0
        elif isinstance(self.clip, (str, Path)):
            try:
                self._file = Path(self.clip).open("rb")
            except OSError as error:
                raise _unreadable(error) from error
        else:
            self._file = io.BytesIO(self.clip) if isinstance(self.clip, bytes) else self.clip
        if self._file.seekable() and self._start is None:
            self._start = self._file.tell()
            self.size = self._file.seek(0, io.SEEK_END) - self._start
            self._file.seek(self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._current += 1  # a thread of gRPC may still ask for more
            if isinstance(self.clip, (str, Path)):
                self._file.close()

    @property
    def repeatable(self) -> bool:
        """Whether the clip can still be sent from its first byte."""
        return self._start is not None or not self._begun

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """The clip's bytes from ``offset`` on; a later call, and leaving the context, end an earlier one.

        A failure to read is kept in ``failure``.
        """
        self._current += 1
        return self._read_on(self._current, offset)

    def _read_on(self, turn: int, sent: int) -> Iterator[bytes]:
        self.failure = None
        try:
            while chunk := self._read(turn, sent):
                yield chunk
                sent += len(chunk)
                if self._on_sent is not None and turn == self._current:
                    self._on_sent(sent, self.size)
        except Exception as error:  # gRPC would swallow it: it is raised again where the call is waited for
            self.failure = error
            raise

    def _read(self, turn: int, position: int) -> bytes:
        """The next chunk, or nothing at the end or once another reader has begun."""
        with self._lock:
            if turn != self._current:
                return b""
            if self._start is not None:
                self._file.seek(self._start + position)
            self._begun = True
            return self._file.read(self._chunk_bytes)

    def raise_failure(self) -> None:
        """Raise what went wrong on this side, if anything.

        Raises:
            BadInputError: the clip could not be read to its end.
        """
        if isinstance(self.failure, OSError):
            raise _unreadable(self.failure) from self.failure
        if self.failure is not None:
            raise self.failure


async def read_ahead(items: Iterator[Item]) -> AsyncIterator[Item]:
    """The same items, made on a worker thread, some at a time."""
    while batch := await asyncio.to_thread(lambda: list(itertools.islice(items, _READ_AHEAD_CHUNKS))):
        for item in batch:
            yield item


def _unreadable(error: OSError) -> ClientError:
    text = f"cannot be read: {error.strerror}"
    return BadInputError(text, code="INVALID_ARGUMENT", reason="UNREADABLE_FILE")
