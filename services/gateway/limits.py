"""What an upload may cost, and the watch that stops work which costs more."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from services.common.errors import BonafideError, DeadlineError, InvalidInputError


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Bounds of one decode. Whatever crosses one is refused with a typed error, never cut silently."""

    max_pixels: int = 8192 * 6144
    """Pixels of one picture as coded."""
    max_duration_us: int = 600 * 1_000_000
    """Length of the presentation timeline, microseconds."""
    max_frames: int = 150_000
    """Pictures in the video stream."""
    max_seconds: float = 60.0
    """Wall time of the whole decode, seconds."""
    threads: int = 2
    """Threads of the video decoder."""


class DecodingCancelledError(BonafideError):
    """Nobody waits for this decode any more."""

    reason = "CANCELLED"


class Watch:
    """The limits of one decode; looked at between reads and packets, it ends work that is unwanted or slow."""

    def __init__(
        self, limits: DecodeLimits, cancelled: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits
        self._ends = clock() + limits.max_seconds
        self._cancelled = cancelled
        self._clock = clock

    def check(self) -> None:
        """Do nothing, or end the work.

        Raises:
            DecodingCancelledError: the caller has gone.
            DeadlineError: the wall time is used up (reason DECODING_TOO_SLOW). Not the file's fault alone: a
                busy machine decodes slowly.
        """
        if self._cancelled():
            raise DecodingCancelledError("the decode was cancelled")
        if self._clock() > self._ends:
            raise DeadlineError("decoding took longer than is allowed", reason="DECODING_TOO_SLOW")


_COMPRESSED_HEADER = re.compile(rb"cmov....dcom", re.DOTALL)
"""A movie header that unpacks (QuickTime File Format, "Compressed Movie Resources"), as FFmpeg tells one."""
_LONGEST_SPLIT = 11
"""Bytes of it that may end one read when the rest begins the next."""


class WatchedReader:
    """A file for FFmpeg to read, which stops answering once the watch says so.

    It also refuses compressed movie headers: FFmpeg inflates them to the size that they state, up to 4 GiB, and
    nothing has written them for twenty years.
    """

    def __init__(self, source: BinaryIO, watch: Watch) -> None:
        self._source = source
        self._watch = watch
        self._before = b""

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes.

        Raises:
            InvalidInputError: they hold a compressed movie header (reason UNSUPPORTED_MEDIA).
        """
        self._watch.check()
        data = self._source.read(size)
        if _COMPRESSED_HEADER.search(self._before + data if self._before else data):
            raise InvalidInputError("files with a compressed header are not taken", reason="UNSUPPORTED_MEDIA")
        self._before = data[-_LONGEST_SPLIT:]
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move, and say where."""
        self._watch.check()
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        """Where we are."""
        return self._source.tell()
