"""The request to the visual service as bytes, put together from the pictures where they lie.

Building the message and having it serialised holds a clip's pictures five times over: protobuf copies them in, and
its serialiser doubles its buffer until they fit. Here they are copied once. That a field's bytes may follow one
another like this is the wire format's promise (protobuf.dev, "Encoding": length-delimited records, repeated fields).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from google.protobuf.descriptor import Descriptor

from bonafide.v1 import media_pb2, visual_pb2
from services.common.converters import branch_to_proto
from services.common.evidence import Branch
from services.common.media import Frame

_LENGTH_DELIMITED = 2
_REQUEST = visual_pb2.AnalyzeFacesRequest.DESCRIPTOR
_FRAME = media_pb2.VideoFrame.DESCRIPTOR


def faces_request(
    survey: Sequence[Frame], dense: Sequence[Frame], branches: frozenset[Branch], content: str = ""
) -> bytes:
    """What the visual service is asked: a serialised ``AnalyzeFacesRequest``; copies the pixels once.

    Args:
        survey: pictures spread over the clip, in time order.
        dense: pictures of one window, in time order.
        branches: those to score.
        content: hash of the clip's file.
    """
    named = [branch_to_proto(branch) for branch in sorted(branches)]
    asked = visual_pb2.AnalyzeFacesRequest(branches=named, content_sha256=content)
    parts: list[bytes | memoryview] = [asked.SerializeToString()]
    for name, frames in (("survey", survey), ("dense", dense)):
        for frame in frames:
            parts.extend(_frame_field(_opening(_REQUEST, name), frame))
    return b"".join(parts)


def _frame_field(opening: bytes, frame: Frame) -> Iterator[bytes | memoryview]:
    height, width = frame.pixels.shape[:2]
    pixels = np.ascontiguousarray(frame.pixels, dtype=np.uint8)
    head = media_pb2.VideoFrame(time_us=frame.time_us, width=width, height=height).SerializeToString()
    head += _opening(_FRAME, "rgb") + _varint(pixels.nbytes)
    yield opening + _varint(len(head) + pixels.nbytes) + head
    yield pixels.reshape(-1).data


def _opening(message: Descriptor, field: str) -> bytes:
    """The tag of a field whose value has a length."""
    return _varint(message.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)


def _varint(value: int) -> bytes:
    """An unsigned integer, seven bits a byte, lowest first."""
    written = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - what seven bits hold
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))
