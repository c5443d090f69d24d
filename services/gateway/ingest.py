"""Taking an upload in: bounded, hashed as it comes, in memory while small and on disk beyond that."""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from services.common.errors import InvalidInputError, LimitExceededError, ResourceExhaustedError

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
RETRY_FULL_SECONDS = 30.0


@contextmanager
def spool_errors() -> Iterator[None]:
    """A full disk becomes an error of ours: the caller's file is fine, and there may be room later.

    Raises:
        ResourceExhaustedError: the block ran out of disk (reason SPOOL_FULL).
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise spool_full() from error


def spool_full() -> ResourceExhaustedError:
    """There is no room on the disk."""
    return ResourceExhaustedError(
        "there is no room for the file now", reason="SPOOL_FULL", retry_after_seconds=RETRY_FULL_SECONDS
    )


def hash_mismatch() -> InvalidInputError:
    """The bytes are not those that were declared."""
    return InvalidInputError("the bytes do not have the SHA-256 that was declared", reason="HASH_MISMATCH")


class Spool:
    """Holds the bytes of one upload.

    Up to ``memory_bytes`` stay in memory; a larger upload moves into a temporary file that has no name, so
    nothing is left behind however the process ends. Use as a context manager.

    Args:
        max_bytes: the most that is taken.
        memory_bytes: the most that stays in memory.
        directory: where the file is; the system's for temporary files when None.
    """

    def __init__(self, max_bytes: int, memory_bytes: int, directory: Path | None = None) -> None:
        self._max_bytes = max_bytes
        self._file = tempfile.SpooledTemporaryFile(max_size=memory_bytes, dir=str(directory) if directory else None)  # noqa: SIM115 - see __exit__
        self._hash = hashlib.sha256()
        self._size = 0

    @property
    def size_bytes(self) -> int:
        """Bytes taken in so far."""
        return self._size

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes taken in so far, lower-case hex."""
        return self._hash.hexdigest()

    def expect(self, size_bytes: int) -> None:
        """Refuse an upload by the size its sender declares.

        Raises:
            LimitExceededError: it is over the limit (reason FILE_TOO_LARGE).
        """
        if size_bytes > self._max_bytes:
            raise LimitExceededError(f"the file is larger than {self._max_bytes} bytes", reason="FILE_TOO_LARGE")

    def write(self, chunk: bytes) -> None:
        """Take in the next bytes.

        Raises:
            LimitExceededError: the upload is over the limit with them (reason FILE_TOO_LARGE).
            ResourceExhaustedError: the disk is full (reason SPOOL_FULL).
        """
        self.expect(self._size + len(chunk))
        with spool_errors():
            self._file.write(chunk)
        self._hash.update(chunk)
        self._size += len(chunk)

    def verify(self, sha256: str) -> None:
        """Refuse bytes that are not those their sender declared; an empty ``sha256`` declares nothing.

        Raises:
            InvalidInputError: they are others (reason HASH_MISMATCH).
        """
        if sha256 and sha256 != self.sha256:
            raise hash_mismatch()

    def finish(self) -> BinaryIO:
        """The whole upload, to be read from its start.

        Raises:
            InvalidInputError: nothing came (reason EMPTY_INPUT).
        """
        if not self._size:
            raise InvalidInputError("the file is empty", reason="EMPTY_INPUT")
        self._file.seek(0)
        return cast("BinaryIO", self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
