"""Recognising a container by its first bytes, so that nothing else is ever handed to a decoder.

FFmpeg guesses formats, and some that it guesses open other files or the network (HLS, SDP, ffconcat). Here
the first bytes alone choose one demuxer, and only that demuxer may run. Animated GIF is left out on
purpose: 256 dithered colours keep none of the traces that the branches look for. So are HEIC and AVIF,
whose tiles FFmpeg would hand out one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from services.common.errors import InvalidInputError

HEAD_BYTES = 4096
"""How much of a file is looked at."""

_ISO_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx"})
_TILED_PICTURE_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"})
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_TS_PACKETS = ((188, 0), (192, 4))
_FULL_NAMES = {"mov": "mov,mp4,m4a,3gp,3g2,mj2", "matroska": "matroska,webm"}
_MP3_BITRATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True, slots=True)
class Container:
    """A recognised container: the one FFmpeg demuxer that may read it, and whether it holds a still."""

    demuxer: str
    still: bool = False

    @property
    def name(self) -> str:
        """FFmpeg's full name of the format."""
        return _FULL_NAMES.get(self.demuxer, self.demuxer)


_PREFIXES = (
    (b"\x1a\x45\xdf\xa3", Container("matroska")),
    (b"FLV\x01", Container("flv")),
    (_ASF_HEADER, Container("asf")),
    (b"\x00\x00\x01\xba", Container("mpeg")),
    (b"ID3", Container("mp3")),
    (b"fLaC", Container("flac")),
    (b"OggS", Container("ogg")),
    (b"\xff\xd8\xff", Container("jpeg_pipe", still=True)),
    (b"\x89PNG\r\n\x1a\n", Container("png_pipe", still=True)),
)
_RIFF_FORMS = {
    b"AVI ": Container("avi"),
    b"WAVE": Container("wav"),
    b"WEBP": Container("webp_pipe", still=True),
}


def recognise(source: BinaryIO) -> Container:
    """Say what a file is, by its first bytes; leaves it at its start.

    Raises:
        InvalidInputError: it is no container that we take (reason UNSUPPORTED_MEDIA).
    """
    source.seek(0)
    head = source.read(HEAD_BYTES)
    source.seek(0)
    container = _by_prefix(head) or _by_structure(head)
    if container is None:
        raise InvalidInputError(
            "this is not a video, picture or sound file that can be analysed", reason="UNSUPPORTED_MEDIA"
        )
    return container


def _by_prefix(head: bytes) -> Container | None:
    for prefix, container in _PREFIXES:
        if head.startswith(prefix):
            return container
    if head[:4] in {b"RIFF", b"RF64"}:
        return _RIFF_FORMS.get(head[8:12])
    return None


def _by_structure(head: bytes) -> Container | None:
    if _is_iso_media(head):
        return Container("mov")
    if _is_transport_stream(head):
        return Container("mpegts")
    if _is_mp3(head):
        return Container("mp3")
    return None


def _is_iso_media(head: bytes) -> bool:
    """MP4 and QuickTime: a first box of a known type and a possible size (ISO/IEC 14496-12)."""
    size = int.from_bytes(head[:4], "big")
    if head[4:8] not in _ISO_BOXES or 1 < size < 8:  # noqa: PLR2004 - a box header is 8 bytes; 0 and 1 are codes
        return False
    return not (head[4:8] == b"ftyp" and head[8:12] in _TILED_PICTURE_BRANDS)


def _is_transport_stream(head: bytes) -> bool:
    """MPEG transport stream: the sync byte 0x47 at the start of each of five packets (ISO/IEC 13818-1)."""
    for size, offset in _TS_PACKETS:
        marks = head[offset : offset + 5 * size : size]
        if len(marks) == 5 and set(marks) == {0x47}:  # noqa: PLR2004
            return True
    return False


def _is_mp3(head: bytes) -> bool:
    """MPEG layer III without a tag: two frame headers, the second where the first says (ISO/IEC 11172-3)."""
    length = _mp3_frame_length(head[:4])
    return length is not None and _mp3_frame_length(head[length : length + 4]) is not None


def _mp3_frame_length(header: bytes) -> int | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:  # noqa: PLR2004 - sync, layer III
        return None
    version, rate_code = header[1] >> 3 & 3, header[2] >> 2 & 3
    if version not in _MP3_RATES or rate_code > 2:  # noqa: PLR2004 - 3 is reserved
        return None
    first_version = version == 3  # noqa: PLR2004 - the code of MPEG-1
    bitrate = _MP3_BITRATES[first_version][header[2] >> 4] * 1000
    if not bitrate:
        return None
    return (144 if first_version else 72) * bitrate // _MP3_RATES[version][rate_code] + (header[2] >> 1 & 1)
