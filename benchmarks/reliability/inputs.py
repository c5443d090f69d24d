"""Generated input: every number names one input, so that whatever it brings down can be made again.

Three kinds: the bytes of a damaged file, the messages of an upload, and the wire form of its options.
"""

from __future__ import annotations

import io
import random
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from bonafide.v1 import analysis_pb2

WIDTH, HEIGHT, FRAMES, SOUND_RATE = 64, 48, 6, 48_000
CODECS = (
    ("mp4", "libx264", "aac"),
    ("matroska", "mpeg4", "libmp3lame"),
    ("webm", "libvpx", "libopus"),
    ("avi", "mpeg4", "libmp3lame"),
    ("mpegts", "libx264", "aac"),
    ("flv", "libx264", "aac"),
)
SOUNDS = (("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame"))
TEXTS = (
    "",
    "r-1",
    "a" * 128,
    "a" * 129,
    "\x00",
    "a\nb",
    "../../etc/passwd",
    "/dev/zero",
    "file:///etc/passwd",
    "\u202egpj.exe",
    "\U0001f600" * 64,
    "%s%n",
    "balanced",
    "balanced\r\nx-injected: 1",
    "{}",
)
NUMBERS = (0, 1, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


class Kind(StrEnum):
    """What an input is given to."""

    CONTAINER = "container"
    STREAM = "stream"
    OPTIONS = "options"


@dataclass(frozen=True, slots=True)
class Input:
    """One input: a file's bytes, the messages of an upload in wire form, or options in wire form (one message)."""

    number: int
    kind: Kind
    messages: tuple[bytes, ...]


class Generator:
    """Makes the input of any number from small files of every format.

    Args:
        seed: another seed, other inputs.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.files = seed_files()

    def make(self, number: int) -> Input:
        """The input of a number; out of ten six are files, two uploads and two options."""
        chance = random.Random(f"{self._seed}:{number}")  # noqa: S311 - to be repeated
        turn = number % 10
        if turn < 6:
            return Input(number, Kind.CONTAINER, (self._file(chance),))
        if turn < 8:
            return Input(number, Kind.STREAM, tuple(self._upload(chance)))
        return Input(number, Kind.OPTIONS, (self._options(chance),))

    def _file(self, chance: random.Random) -> bytes:
        return damaged(chance.choice(self.files), chance, self.files)

    def _upload(self, chance: random.Random) -> list[bytes]:
        """Messages of an upload: mostly in order, sometimes doubled, missing, empty, huge or noise."""
        options = analysis_pb2.AnalyzeOptions(request_id="r", file_name=chance.choice(("", "clip.mp4")))
        if chance.random() < 0.4:
            options = _parsed(self._options(chance))
        messages = [analysis_pb2.AnalyzeRequest(options=options).SerializeToString()]
        body = self._file(chance) if chance.random() < 0.7 else chance.choice(self.files)
        step = chance.choice((1 << 10, 1 << 14, 1 << 20))
        chunks = (body[start : start + step] for start in range(0, len(body), step))
        messages += [analysis_pb2.AnalyzeRequest(chunk=chunk).SerializeToString() for chunk in chunks]
        if chance.random() < 0.3:
            oddity = chance.choice((b"", b"\x12\x00", b"\x0a\x00", messages[0], chance.randbytes(20)))
            messages.insert(chance.randrange(len(messages) + 1), oddity)
        if chance.random() < 0.1:
            del messages[chance.randrange(len(messages))]
        if chance.random() < 0.02:
            messages.append(analysis_pb2.AnalyzeRequest(chunk=bytes((1 << 20) + 1)).SerializeToString())
        return messages

    def _options(self, chance: random.Random) -> bytes:
        wire = _plain_options(chance)
        return _damaged_wire(wire, chance) if chance.random() < 0.5 else wire


def _plain_options(chance: random.Random) -> bytes:
    """Options whose every field may hold anything of its type."""
    options = analysis_pb2.AnalyzeOptions()
    for field in analysis_pb2.AnalyzeOptions.DESCRIPTOR.fields:
        if chance.random() < 0.4:
            _set(options, field, chance)
    return options.SerializeToString()


def _set(message: Any, field: Any, chance: random.Random) -> None:  # noqa: ANN401 - descriptors are untyped
    repeated = isinstance(getattr(message, field.name), Sequence) and not isinstance(
        getattr(message, field.name), str | bytes
    )
    makers: dict[int, Callable[[], Any]] = {
        field.CPPTYPE_STRING: lambda: _text(chance, as_bytes=field.type == field.TYPE_BYTES),
        field.CPPTYPE_ENUM: lambda: chance.choice((0, 1, 2, 3, 4, 5, 6, 99, -1, 2**31 - 1)),
        field.CPPTYPE_UINT64: lambda: chance.choice(NUMBERS),
        field.CPPTYPE_UINT32: lambda: chance.choice([number for number in NUMBERS if number < 2**32]),
        field.CPPTYPE_INT64: lambda: chance.choice([number for number in NUMBERS if number < 2**63]),
        field.CPPTYPE_BOOL: lambda: chance.random() < 0.5,
    }
    make = makers.get(field.cpp_type)
    if make is None:
        return
    if repeated:
        getattr(message, field.name).extend(make() for _ in range(chance.choice((1, 3, 200))))
    else:
        setattr(message, field.name, make())


def _text(chance: random.Random, *, as_bytes: bool) -> str | bytes:
    if chance.random() < 0.5:
        text = chance.choice(TEXTS)
    else:
        text = "".join(chr(chance.choice((32, 65, 0x7F, 0x300, 0x2028))) for _ in range(chance.randrange(300)))
    return text.encode() if as_bytes else text


def _parsed(wire: bytes) -> analysis_pb2.AnalyzeOptions:
    try:
        return analysis_pb2.AnalyzeOptions.FromString(wire)
    except Exception:  # noqa: BLE001 - noise that is no message at all is sent as empty options
        return analysis_pb2.AnalyzeOptions()


def _damaged_wire(wire: bytes, chance: random.Random) -> bytes:
    changed = bytearray(wire or b"\x00")
    for _ in range(chance.randrange(1, 6)):
        action = chance.randrange(3)
        place = chance.randrange(len(changed))
        if action == 0:
            changed[place] ^= 1 << chance.randrange(8)
        elif action == 1:
            changed[place:place] = chance.randbytes(chance.randrange(1, 12))
        elif len(changed) > 1:
            del changed[place : place + chance.randrange(1, 8)]
            changed = changed or bytearray(b"\x00")
    return bytes(changed)


def damaged(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A file with a few things wrong: bytes, lengths, missing, doubled or foreign parts."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(len(changed)) if len(changed) > 1 else 0
        if chance.random() < 0.5:
            place = min(place, chance.choice((32, 200, 1000)))  # headers decide most
        length = chance.choice((1, 2, 4, 8, 64, 512))
        match chance.randrange(8):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                changed[place : place + length] = chance.randbytes(length)
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = changed[place : place + length]
            case 4:
                size = chance.choice((4, 8))
                value = chance.choice(NUMBERS) % (1 << (8 * size))
                changed[place : place + size] = value.to_bytes(size, chance.choice(("big", "little")))
            case 5:
                del changed[max(place, 8) :]
            case 6:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                changed[place : place + length] = other[start : start + 4 * length]
            case _:
                changed[place : place + length] = bytes(length)
    return bytes(changed)


def seed_files() -> list[bytes]:
    """Small whole files of every kind that is recognised, and two that are not."""
    files = [_clip(*codecs) for codecs in CODECS]
    files += [_sound(*codecs) for codecs in SOUNDS]
    picture = Image.fromarray(_picture(0))
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        sink = io.BytesIO()
        picture.save(sink, kind)
        files.append(sink.getvalue())
    return [*files, _wave(), b"PK\x03\x04" + bytes(200)]


def _picture(index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    ramp = np.linspace(20 + 10 * index, 200, WIDTH, dtype=np.uint8)
    return np.repeat(np.tile(ramp, (HEIGHT, 1))[:, :, None], 3, axis=2)


def _clip(container: str, video_codec: str, audio_codec: str) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=container, options={"fflags": "bitexact"}) as file:
        video: Any = file.add_stream(video_codec, rate=25)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio: Any = file.add_stream(audio_codec, rate=SOUND_RATE, layout="mono")
        for index in range(FRAMES):
            file.mux(video.encode(av.VideoFrame.from_ndarray(_picture(index), format="rgb24")))
        file.mux(video.encode())
        _encode_sound(file, audio)
    return sink.getvalue()


def _sound(container: str, codec: str) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=container, options={"fflags": "bitexact"}) as file:
        _encode_sound(file, file.add_stream(codec, rate=SOUND_RATE, layout="mono"))
    return sink.getvalue()


def _encode_sound(file: Any, stream: Any) -> None:  # noqa: ANN401 - PyAV's
    tone = np.sin(np.arange(SOUND_RATE // 4) * 0.06).astype(np.float32)
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=SOUND_RATE)
    size = stream.codec_context.frame_size or 1024
    for start in range(0, len(tone) - size, size):
        block = av.AudioFrame.from_ndarray(tone[None, start : start + size], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        for converted in resampler.resample(block):
            file.mux(stream.encode(converted))
    file.mux(stream.encode(None))


def _wave() -> bytes:
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(8000))
    return sink.getvalue()
