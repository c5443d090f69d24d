"""PNG without the chunks that unpack: a kilobyte of them may stand for a megabyte that nobody looks at.

FFmpeg inflates comments and colour profiles while it reads a picture, without a limit (measured: 1 MB of file took
2 GB of memory), and hands them on as metadata, which moves no score. So they are left out beforehand. Chunks are
those of the PNG specification (third edition, 5.3 and 11).
"""

from __future__ import annotations

import tempfile
from typing import BinaryIO, cast

from services.gateway.ingest import spool_errors

SIGNATURE_BYTES = 8
HEAD_BYTES = 8
CHECKSUM_BYTES = 4
UNPACKING = frozenset({b"zTXt", b"iTXt", b"tEXt", b"iCCP"})
"""Chunks that hold compressed texts or profiles; plain comments go with them."""
_MEMORY_BYTES = 4 << 20
_BLOCK = 1 << 18


def without_comments(source: BinaryIO) -> BinaryIO:
    """A copy of a PNG, to be read from its start and closed by the caller; a damaged rest is copied as it is.

    Raises:
        ResourceExhaustedError: there is no room for it (reason SPOOL_FULL).
    """
    copy = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES))  # noqa: SIM115 - the caller closes
    with spool_errors():
        _copy_plain(source, copy)
    copy.seek(0)
    return copy


def _copy_plain(source: BinaryIO, copy: BinaryIO) -> None:
    source.seek(0)
    copy.write(source.read(SIGNATURE_BYTES))
    while len(head := source.read(HEAD_BYTES)) == HEAD_BYTES:
        size = int.from_bytes(head[:4], "big") + CHECKSUM_BYTES
        if head[4:] in UNPACKING:
            source.seek(size, 1)
            continue
        copy.write(head)
        while size and (block := source.read(min(size, _BLOCK))):
            copy.write(block)
            size -= len(block)
