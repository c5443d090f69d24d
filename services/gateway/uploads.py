"""Files that arrive in pieces: kept on disk, under their owner, until they are used up or expire.

An upload is one file. Its name says what was announced, its length how much has arrived, its directory whose
it is, the time of its last change when it expires. Nothing else is remembered anywhere, so any replica that
shares the directory goes on where another one stopped, and nothing can be left half-written.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Self

from services.common.errors import (
    AbortedError,
    LimitExceededError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    ResourceExhaustedError,
    UnavailableError,
)
from services.gateway.ingest import hash_mismatch, spool_errors, spool_full

_FILE = re.compile(r"(?P<id>[0-9a-f]{32})-(?P<size>[0-9]{1,20})-(?P<sha256>[0-9a-f]{64}|any)\.(?P<state>part|whole)")
_LOCK_TRIES, _LOCK_PAUSE_SECONDS, _LOCK_RETRY_SECONDS = 200, 0.01, 1.0
_LOOKS = 2
"""A file that gets its last name while its directory is read can be missed once."""
_WHOLE = ".whole"
"""Suffix of a file whose last byte has arrived."""
_HOME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What uploads may take up. Bytes count as announced, whether or not they have arrived.

    ``keep_seconds`` is how long an upload lives after its last byte; ``reserve_bytes`` of the disk stay free.
    """

    max_file_bytes: int
    uploads_per_caller: int
    bytes_per_caller: int
    keep_seconds: float
    reserve_bytes: int


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as it is now; ``expires`` is in seconds of the Unix epoch, ``sha256`` as declared or empty."""

    upload_id: str
    size_bytes: int
    received_bytes: int
    complete: bool
    expires: float
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Stored:
    """One file of the store, as its name and its inode tell."""

    path: Path
    upload_id: str
    size_bytes: int
    sha256: str
    complete: bool
    received_bytes: int
    changed: float


class UploadStore:
    """Keeps uploads in a directory. Every method blocks for as long as the disk does."""

    def __init__(self, directory: Path, limits: StoreLimits, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._limits = limits
        self._clock = clock
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self, owner: str, size_bytes: int, sha256: str = "") -> Upload:
        """Reserve room for a file.

        Raises:
            LimitExceededError: it is larger than one may be (FILE_TOO_LARGE).
            ResourceExhaustedError: its owner has no room left (UPLOAD_QUOTA), or the disk (SPOOL_FULL).
            UnavailableError: another process has been creating one for seconds (UNAVAILABLE).
        """
        if size_bytes > self._limits.max_file_bytes:
            limit = self._limits.max_file_bytes
            raise LimitExceededError(f"the file is larger than {limit} bytes", reason="FILE_TOO_LARGE")
        home = self._home(owner)
        upload_id = secrets.token_hex(16)
        with spool_errors(), self._locked():
            self._sweep()
            self._check_quota(home, size_bytes)
            home.mkdir(mode=0o700, exist_ok=True)
            (home / f"{upload_id}-{size_bytes}-{sha256 or 'any'}.part").touch(mode=0o600, exist_ok=False)
        return self.find(owner, upload_id)

    def find(self, owner: str, upload_id: str) -> Upload:
        """How far an upload is.

        Raises:
            NotFoundError: its owner has no such upload (UPLOAD_NOT_FOUND).
        """
        return self._shown(self._lookup(owner, upload_id))

    def delete(self, owner: str, upload_id: str) -> None:
        """Let go of an upload.

        Raises:
            NotFoundError: its owner has no such upload (UPLOAD_NOT_FOUND).
        """
        path = self._lookup(owner, upload_id).path
        for name in (path, path.with_suffix(_WHOLE)):  # the last byte may be arriving
            name.unlink(missing_ok=True)

    def open(self, owner: str, upload_id: str) -> BinaryIO:
        """The whole file, to be read; it stays readable when the upload is deleted meanwhile.

        Raises:
            NotFoundError: its owner has no such upload (UPLOAD_NOT_FOUND).
            PreconditionError: bytes are missing (UPLOAD_INCOMPLETE).
        """
        stored = self._lookup(owner, upload_id)
        if not stored.complete:
            raise PreconditionError("bytes of the upload are still missing", reason="UPLOAD_INCOMPLETE")
        try:
            return stored.path.open("rb")
        except FileNotFoundError as error:
            raise _not_found() from error

    def append(self, owner: str, upload_id: str, offset: int) -> Stretch:
        """A stretch of the file that begins at ``offset``; use it as a context manager.

        Raises:
            NotFoundError: its owner has no such upload (UPLOAD_NOT_FOUND).
            OutOfRangeError: more or fewer bytes have arrived (OFFSET_MISMATCH).
        """
        stored = self._lookup(owner, upload_id)
        with suppress(FileNotFoundError):
            return Stretch(_from(stored, offset))
        # Its last byte arrived meanwhile and it has its last name, or it was deleted.
        return Stretch(_from(self._lookup(owner, upload_id), offset))

    def sweep(self) -> None:
        """Delete what has expired; files that are not uploads are left alone."""
        with self._locked():
            self._sweep()

    def _sweep(self) -> None:
        for stored in self._all():
            if self._expired(stored):
                stored.path.unlink(missing_ok=True)
        for home in self._directory.iterdir():
            if _HOME.fullmatch(home.name):
                with suppress(OSError):  # not empty
                    home.rmdir()

    def _all(self) -> list[_Stored]:
        homes = [path for path in self._directory.iterdir() if _HOME.fullmatch(path.name)]
        return [stored for home in homes for stored in _files(home)]

    def _check_quota(self, home: Path, size_bytes: int) -> None:
        kept = self._all()
        own = [stored for stored in kept if stored.path.parent == home]
        limits = self._limits
        if len(own) >= limits.uploads_per_caller:
            raise _quota(f"at most {limits.uploads_per_caller} uploads at a time; delete those that are not needed")
        if sum(stored.size_bytes for stored in own) + size_bytes > limits.bytes_per_caller:
            raise _quota(f"uploads together are at most {limits.bytes_per_caller} bytes; delete what is not needed")
        promised = sum(stored.size_bytes - stored.received_bytes for stored in kept)
        if shutil.disk_usage(self._directory).free < promised + size_bytes + limits.reserve_bytes:
            raise spool_full()

    def _lookup(self, owner: str, upload_id: str) -> _Stored:
        for _ in range(_LOOKS):
            for stored in _files(self._home(owner)):
                if stored.upload_id == upload_id and not self._expired(stored):
                    return stored
        raise _not_found()

    def _shown(self, stored: _Stored) -> Upload:
        expires = stored.changed + self._limits.keep_seconds
        return Upload(
            stored.upload_id, stored.size_bytes, stored.received_bytes, stored.complete, expires, stored.sha256
        )

    def _expired(self, stored: _Stored) -> bool:
        return self._clock() > stored.changed + self._limits.keep_seconds

    def _home(self, owner: str) -> Path:
        """Names of callers may hold anything: their directories are named by a digest."""
        return self._directory / hashlib.sha256(owner.encode()).hexdigest()[:32]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One creation at a time, over all processes that share the directory. One that hangs holds up nobody long.

        Raises:
            UnavailableError: somebody has been creating for seconds (UNAVAILABLE).
        """
        with (self._directory / ".lock").open("w") as lock:
            for _ in range(_LOCK_TRIES):
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_LOCK_PAUSE_SECONDS)
            else:
                raise UnavailableError("uploads cannot be created now", retry_after_seconds=_LOCK_RETRY_SECONDS)
            yield


class Stretch:
    """Appends bytes to one upload; whoever else appends meanwhile is noticed before a byte is written.

    A caller who hangs up leaves a write behind on its thread: the file is closed only after it.
    """

    def __init__(self, stored: _Stored) -> None:
        self._stored = stored
        self._offset = stored.received_bytes
        descriptor = os.open(stored.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._file: FileIO = os.fdopen(descriptor, "ab", buffering=0)
        self._writing = threading.Lock()

    def write(self, chunk: bytes) -> None:
        """Append the next bytes.

        Raises:
            OutOfRangeError: there are more than were announced (UPLOAD_OVERFLOW).
            AbortedError: another stretch has appended meanwhile (UPLOAD_CONFLICT).
            NotFoundError: the upload was deleted meanwhile (UPLOAD_NOT_FOUND).
            ResourceExhaustedError: the disk is full (SPOOL_FULL).
        """
        if self._offset + len(chunk) > self._stored.size_bytes:
            text = f"more bytes than the {self._stored.size_bytes} that were announced"
            raise OutOfRangeError(text, reason="UPLOAD_OVERFLOW")
        with self._writing, spool_errors(), self._alone():
            view = memoryview(chunk)
            while view:
                written = os.write(self._file.fileno(), view)
                self._offset += written
                view = view[written:]

    def finish(self) -> None:
        """Close the file when its last byte has arrived; call it at the end of every stretch.

        Raises:
            InvalidInputError: the bytes are not those of the declared SHA-256, and are gone (HASH_MISMATCH).
        """
        stored = self._stored
        if stored.complete or self._offset < stored.size_bytes:
            return
        whole = stored.path.with_suffix(_WHOLE)
        try:
            if stored.sha256 and _sha256(stored.path) != stored.sha256:
                stored.path.unlink(missing_ok=True)
                raise hash_mismatch()
            stored.path.rename(whole)
        except FileNotFoundError:  # another stretch has done the same, or it was deleted
            if not whole.exists():
                raise _not_found() from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else appends within the block, or has since this stretch did. Never waits: who holds may be dead."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _conflict() from error
        try:
            status = os.fstat(self._file.fileno())
            if not status.st_nlink:
                raise _not_found()
            if status.st_size != self._offset:
                raise _conflict()
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._writing:
            self._file.close()


def _from(stored: _Stored, offset: int) -> _Stored:
    if offset != stored.received_bytes:
        text = f"{stored.received_bytes} bytes have arrived: go on from there"
        raise OutOfRangeError(text, reason="OFFSET_MISMATCH")
    return stored


def _files(home: Path) -> list[_Stored]:
    try:
        paths = list(home.iterdir())
    except FileNotFoundError:
        return []
    return [stored for path in paths if (stored := _stored_or_none(path)) is not None]


def _stored_or_none(path: Path) -> _Stored | None:
    found = _FILE.fullmatch(path.name)
    if found is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    sha256 = "" if found["sha256"] == "any" else found["sha256"]
    whole = found["state"] == "whole"
    return _Stored(path, found["id"], int(found["size"]), sha256, whole, status.st_size, status.st_mtime)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_found() -> NotFoundError:
    return NotFoundError("there is no such upload", reason="UPLOAD_NOT_FOUND")


def _conflict() -> AbortedError:
    return AbortedError("somebody else sends the same upload", reason="UPLOAD_CONFLICT")


def _quota(text: str) -> ResourceExhaustedError:
    return ResourceExhaustedError(text, reason="UPLOAD_QUOTA", retry_after_seconds=60)
