"""Files that are small to send and ruinous to believe."""

from __future__ import annotations

import io
import zipfile
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

SIDE = 16_000
TRACKS = 3000
GIF_FRAMES = 10_000


def zip_bomb(megabytes: int = 256) -> bytes:
    """A ZIP of zeros."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip.mp4", bytes(megabytes << 20))
    return sink.getvalue()


def pixel_bomb() -> bytes:
    """A PNG of 256 million pixels in some kilobytes."""
    sink = io.BytesIO()
    Image.new("1", (SIDE, SIDE)).save(sink, "PNG")
    return sink.getvalue()


def metadata_bomb(megabytes: int = 512) -> bytes:
    """A PNG whose compressed comment unpacks to many megabytes."""
    sink = io.BytesIO()
    Image.new("L", (64, 64)).save(sink, "PNG")
    whole = sink.getvalue()
    chunk = b"zTXt" + b"Comment\x00\x00" + _packed(b"", megabytes)
    return whole[:33] + (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + whole[33:]


def header_bomb(megabytes: int = 512) -> bytes:
    """A QuickTime film whose compressed header unpacks to many megabytes."""

    def box(kind: bytes, body: bytes) -> bytes:
        return (8 + len(body)).to_bytes(4, "big") + kind + body

    size = (8 + (megabytes << 20)).to_bytes(4, "big")
    packed = box(b"cmvd", size + _packed(size + b"free", megabytes))
    header = box(b"cmov", box(b"dcom", b"zlib") + packed)
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", header)


def _packed(head: bytes, megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(head), *(packer.compress(bytes(1 << 20)) for _ in range(megabytes))]
    return b"".join(parts) + packer.flush()


def duration_bomb(hours: int = 1000) -> bytes:
    """Two pictures, the second a thousand hours later."""
    return _video([0, hours * 3600 * 25])


def frame_bomb(frames: int = 60_000) -> bytes:
    """A long clip of tiny pictures that compress to nothing."""
    return _video(list(range(frames)))


def _video(times: list[int]) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format="matroska") as file:
        stream: Any = file.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for time in times:
            picture.pts, picture.time_base = time, Fraction(1, 25)
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return sink.getvalue()


def track_bomb() -> bytes:
    """A MOV with thousands of sound tracks: one track's description, again and again."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="mov") as file:
        stream: Any = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        block.sample_rate, block.pts = 8000, 0
        file.mux(stream.encode(block))
    whole = sink.getvalue()
    movie, track = whole.rindex(b"moov") - 4, whole.rindex(b"trak") - 4  # the description stands at the end
    length = int.from_bytes(whole[track : track + 4], "big")
    tracks = whole[track : track + length] * TRACKS
    rest = whole[movie + 8 : track] + tracks + whole[track + length :]
    return whole[:movie] + (8 + len(rest)).to_bytes(4, "big") + b"moov" + rest


def gif_bomb() -> bytes:
    """A GIF of ten thousand frames of one pixel each."""
    head = b"GIF89a" + (16).to_bytes(2, "little") * 2 + b"\x80\x00\x00" + b"\x00\x00\x00\xff\xff\xff"
    control = b"\x21\xf9\x04\x00\x01\x00\x00\x00"
    picture = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00" + b"\x02\x02\x44\x01\x00"
    return head + (control + picture) * GIF_FRAMES + b"\x3b"


def endless_mp4(megabytes: int) -> bytes:
    """A head that promises a film, and nothing but zeros behind it."""
    return b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(megabytes << 20)
