"""Headers of still pictures: what must be known before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from services.common.errors import InvalidInputError

_START_OF_FRAME = frozenset({*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
_APP1 = 0xE1
_START_OF_SCAN = 0xDA
_FILL = 0xFF
_ORIENTATION_TAG = 0x0112
_IFD_ENTRY_BYTES = 12
_VP8X_ANIMATED = 0x02
_VP8L_SIGNATURE = 0x2F


def png_size(source: BinaryIO) -> tuple[int, int] | None:
    """Width and height; None when damaged. IHDR must come first (PNG specification, 11.2.1)."""
    head = source.read(24)
    if head[12:16] != b"IHDR" or len(head) < 24:  # noqa: PLR2004 - signature, length, type, two sizes
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def jpeg_size(source: BinaryIO) -> tuple[int, int] | None:
    """Width and height; None when damaged. They stand in the start of frame (ITU-T T.81, B.2.2)."""
    for marker, body in _jpeg_segments(source):
        if marker in _START_OF_FRAME and len(body) >= 5:  # noqa: PLR2004 - precision, two sizes
            return int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
    return None


def jpeg_orientation(source: BinaryIO) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) when there is none or it is damaged (CIPA DC-008, 4.6.5)."""
    for marker, body in _jpeg_segments(source):
        if marker == _APP1 and body.startswith(b"Exif\x00\x00"):
            try:
                return _tiff_orientation(body[6:])
            except struct.error:
                return 1
    return 1


def webp_size(source: BinaryIO) -> tuple[int, int] | None:
    """Width and height; None when damaged. The first chunk is VP8, VP8L or VP8X (RFC 9649).

    Raises:
        InvalidInputError: the picture is animated (UNSUPPORTED_MEDIA).
    """
    head = source.read(30)
    kind, body = head[12:16], head[20:]
    if len(body) < 10:  # noqa: PLR2004 - the longest of the three
        return None
    if kind == b"VP8X":
        if body[0] & _VP8X_ANIMATED:
            raise InvalidInputError("animated pictures cannot be analysed", reason="UNSUPPORTED_MEDIA")
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and body[0] == _VP8L_SIGNATURE:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def _jpeg_segments(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker code and body of each segment up to the first scan."""
    source.seek(2)
    while source.read(1) == b"\xff":
        code = _FILL
        while code == _FILL:
            code = int.from_bytes(source.read(1), "big")
        if code in _BARE_MARKERS:
            continue
        length = int.from_bytes(source.read(2), "big")
        if code in {0, _START_OF_SCAN} or length < 2:  # noqa: PLR2004 - the length counts itself
            return
        yield code, source.read(length - 2)


def _tiff_orientation(tiff: bytes) -> int:
    """The orientation in the first directory of a TIFF structure (TIFF 6.0, section 2)."""
    order = "<" if tiff[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for entry in range(entries):
        at = directory + 2 + entry * _IFD_ENTRY_BYTES
        (tag,) = struct.unpack_from(order + "H", tiff, at)
        if tag == _ORIENTATION_TAG:
            return int(struct.unpack_from(order + "H", tiff, at + 8)[0])
    return 1
