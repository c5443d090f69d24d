"""Makes every media file the tests need, good and bad, so that none is committed.

Pictures carry their own number as a bar code that survives compression, and sound carries a click at a
known time, so that a test can say exactly which frame it was given and when.
"""

from __future__ import annotations

import io
import os
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]

BAR_CODE_BITS = 10
CORNER_COLOUR = (220, 40, 40)
SOUND_RATE = 48_000
FAST = {"libx264": {"preset": "ultrafast"}, "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"}}
FAST |= {"libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}, "libsvtav1": {"preset": "10"}}
TIME_BASE = Fraction(1, 90_000)


def numbered_picture(index: int, width: int = 320, height: int = 240) -> Pixels:
    """A grey ramp with a moving square, a red patch at the lower left and ``index`` as a bar code on top."""
    ramp = np.linspace(60, 180, width, dtype=np.uint8)
    picture = np.repeat(np.tile(ramp, (height, 1))[:, :, None], 3, axis=2)
    side = height // 6
    left = (index * 7) % max(width - side, 1)
    picture[height // 2 : height // 2 + side, left : left + side] = (40, 200, 90)
    picture[height - side :, :side] = CORNER_COLOUR
    for bit in range(BAR_CODE_BITS):
        x0, x1 = bit * width // BAR_CODE_BITS, (bit + 1) * width // BAR_CODE_BITS
        picture[: height // 5, x0:x1] = 255 if index >> bit & 1 else 0
    return picture


def read_number(pixels: Pixels) -> int:
    """The bar code of a numbered picture, at any scale."""
    height, width = pixels.shape[:2]
    band = pixels[height // 20 : height // 7].mean(axis=(0, 2))
    bits = [band[(2 * bit + 1) * width // (2 * BAR_CODE_BITS)] > 127 for bit in range(BAR_CODE_BITS)]
    return sum(1 << bit for bit, is_set in enumerate(bits) if is_set)


def click_track(seconds: float, click_seconds: Sequence[float] = (), *, level: float = 0.9) -> Samples:
    """Silence at SOUND_RATE with a 2 ms burst at each given time."""
    samples = np.zeros(round(seconds * SOUND_RATE), dtype=np.float32)
    for moment in click_seconds:
        first = round(moment * SOUND_RATE)
        samples[first : first + SOUND_RATE // 500] = level
    return samples


def tone(seconds: float, hertz: float = 440.0, *, level: float = 0.5) -> Samples:
    """A sine at SOUND_RATE."""
    clock = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    return (level * np.sin(2 * np.pi * hertz * clock)).astype(np.float32)


@dataclass(frozen=True)
class Clip:
    """How to make one clip. ``container`` is FFmpeg's muxer name; a codec of None leaves the track out.

    ``times`` are the seconds at which pictures are shown and override ``frames`` and ``rate``.
    ``rotation`` is counter-clockwise degrees written as a display matrix. ``sound_delay`` shifts the sound
    on the clock, seconds.
    """

    container: str = "mp4"
    video_codec: str | None = "libx264"
    audio_codec: str | None = "aac"
    frames: int = 50
    rate: int = 25
    width: int = 320
    height: int = 240
    pixel_format: str = "yuv420p"
    times: tuple[float, ...] | None = None
    rotation: int = 0
    gop: int = 12
    sound: Samples | None = None
    channels: int = 1
    sound_delay: float = 0.0
    picture: Callable[[int, int, int], Pixels] = numbered_picture
    codec_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the pictures last."""
        if self.times is not None:
            return self.times[-1] + 1 / self.rate
        return self.frames / self.rate

    def bytes(self) -> bytes:
        """Encode it."""
        if "faststart" in self.container_options.get("movflags", ""):
            return self._through_a_file()
        sink = io.BytesIO()
        self._write(sink)
        return sink.getvalue()

    def _through_a_file(self) -> bytes:
        """Moving the index to the front needs a file that FFmpeg can open again."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "clip"
            self._write(str(file))
            return file.read_bytes()

    def _write(self, sink: io.BytesIO | str) -> None:
        with _schedule_kept(), av.open(sink, "w", format=self.container, options=self.container_options) as container:
            video = self._video_stream(container) if self.video_codec else None
            audio = self._audio_stream(container) if self.audio_codec else None
            packets = self._video_packets(video) if video else []
            packets += self._audio_packets(audio) if audio else []
            for packet in sorted(packets, key=lambda item: item.dts * item.time_base):
                container.mux(packet)

    def _video_stream(self, container: av.container.OutputContainer) -> av.VideoStream:
        options = FAST.get(self.video_codec, {}) | self.codec_options
        stream = container.add_stream(self.video_codec, rate=self.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.pixel_format
        stream.gop_size = self.gop
        if self.times is not None:
            stream.time_base = stream.codec_context.time_base = TIME_BASE
        if self.rotation:
            stream.set_display_rotation(self.rotation)
        return stream

    def _audio_stream(self, container: av.container.OutputContainer) -> av.AudioStream:
        layout = "mono" if self.channels == 1 else "stereo"
        stream = container.add_stream(self.audio_codec, rate=SOUND_RATE, layout=layout)
        if self.audio_codec == "wmav2":
            stream.bit_rate = 128_000
        return stream

    def _video_packets(self, stream: av.VideoStream) -> list[av.Packet]:
        packets: list[av.Packet] = []
        count = self.frames if self.times is None else len(self.times)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(self.picture(index, self.width, self.height), format="rgb24")
            frame.pts = index
            frame.time_base = Fraction(1, self.rate)
            if self.times is not None:
                frame.pts, frame.time_base = round(self.times[index] / TIME_BASE), TIME_BASE
            packets += stream.encode(frame)
        return packets + stream.encode(None)

    def _audio_packets(self, stream: av.AudioStream) -> list[av.Packet]:
        samples = tone(self.seconds) if self.sound is None else self.sound
        size = stream.codec_context.frame_size or 1024
        layout = "mono" if self.channels == 1 else "stereo"
        to_codec = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=SOUND_RATE)
        first = round(self.sound_delay * SOUND_RATE)
        packets: list[av.Packet] = []
        for start in range(0, len(samples), size):
            block = np.tile(samples[start : start + size], (self.channels, 1))
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, first + start, Fraction(1, SOUND_RATE)
            for converted in to_codec.resample(frame):
                packets += stream.encode(converted)
        return packets + stream.encode(None)


def sound_file(container: str = "wav", codec: str = "pcm_s16le", sound: Samples | None = None) -> bytes:
    """A file of sound alone."""
    return Clip(container=container, video_codec=None, audio_codec=codec, sound=sound).bytes()


@contextmanager
def _schedule_kept() -> Iterator[None]:
    """SVT-AV1 makes the thread that opens it real-time where it may: all that is started later starves others."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def still_picture(kind: str = "JPEG", width: int = 320, height: int = 240, pixels: Pixels | None = None) -> bytes:
    """A still in one of PIL's formats: JPEG, PNG, WEBP, GIF."""
    sink = io.BytesIO()
    Image.fromarray(numbered_picture(5, width, height) if pixels is None else pixels).save(sink, kind)
    return sink.getvalue()


def turned_photograph(orientation: int) -> bytes:
    """A JPEG with an EXIF orientation, 1 to 8."""
    sink, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(numbered_picture(5)).save(sink, "JPEG", exif=exif, quality=95)
    return sink.getvalue()


def mp3_with_cover_art(seconds: float = 2.0) -> bytes:
    """An MP3 whose ID3 tag holds a JPEG."""
    music = sound_file("mp3", "libmp3lame", tone(seconds))
    image = still_picture("JPEG")
    body = b"\x00image/jpeg\x00\x03\x00" + image
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\x00\x00" + body
    size = len(frame)
    tag_size = bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
    start = 0
    if music[:3] == b"ID3":
        start = 10 + sum(b << s for b, s in zip(music[6:10], (21, 14, 7, 0), strict=True))
    return b"ID3\x03\x00\x00" + tag_size + frame + music[start:]


def fast_start(**changes: object) -> bytes:
    """An MP4 whose index comes before its data."""
    return Clip(container_options={"movflags": "faststart"}, **changes).bytes()


def cut(data: bytes, share: float = 0.5) -> bytes:
    """The first part of a file."""
    return data[: int(len(data) * share)]


def flip_bytes(data: bytes, share: float = 0.001, seed: int = 0, *, protect: int = 0) -> bytes:
    """A file with some of its bytes changed; the first ``protect`` bytes stay as they are."""
    chance, damaged = random.Random(seed), bytearray(data)
    for _ in range(max(1, int(len(data) * share))):
        damaged[chance.randrange(protect, len(data))] ^= chance.randrange(1, 256)
    return bytes(damaged)


def random_bytes(size: int = 100_000, seed: int = 0) -> bytes:
    """Noise."""
    return random.Random(seed).randbytes(size)


def text_file() -> bytes:
    """Prose."""
    return b"It was a bright cold day in April, and the clocks were striking thirteen.\n" * 100


def zip_archive() -> bytes:
    """A ZIP with one member."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("clip.mp4", numbered_picture(1).tobytes())
    return sink.getvalue()


def elf_file() -> bytes:
    """The start of a Linux program."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 62, 1) + random_bytes(4000)


def m3u8_playlist(target: str) -> bytes:
    """An HLS playlist that points at ``target``."""
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n".encode()


def sdp_description(port: int) -> bytes:
    """An SDP session that listens on a local port."""
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0"]
    return "\n".join([*lines, f"m=video {port} RTP/AVP 96", "a=rtpmap:96 H264/90000", ""]).encode()


def ffconcat_script(target: str) -> bytes:
    """An ffconcat script that names ``target``."""
    return f"ffconcat version 1.0\nfile '{target}'\n".encode()


def pixel_bomb_videos(containers: Sequence[str] = ("mp4",), side: int = 16_000) -> dict[str, bytes]:
    """One flat frame of ``side`` squared pixels in under a megabyte, by container; takes seconds to make."""
    frame = av.VideoFrame(side, side, "gray")
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.pts = 0
    sinks = {name: io.BytesIO() for name in containers}
    first = _encode_bomb(frame, sinks[containers[0]], containers[0])
    del frame
    for name in containers[1:]:
        _remux(first, sinks[name], name)
    return {name: sink.getvalue() for name, sink in sinks.items()}


def pixel_bomb_video(container: str = "mp4", side: int = 16_000) -> bytes:
    """One such bomb."""
    return pixel_bomb_videos((container,), side)[container]


def _encode_bomb(frame: av.VideoFrame, sink: io.BytesIO, container: str) -> bytes:
    options = {"preset": "ultrafast", "crf": "40", "threads": "1"}
    with av.open(sink, "w", format=container) as output:
        stream = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "gray"
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return sink.getvalue()


def _remux(data: bytes, sink: io.BytesIO, container: str) -> None:
    """Move the video of one file into another container without decoding it."""
    with (
        av.open(io.BytesIO(data), options={"codec_whitelist": "-"}) as source,
        av.open(sink, "w", format=container) as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)


def pixel_bomb_still(kind: str = "PNG", side: int = 16_000) -> bytes:
    """A flat still of ``side`` squared pixels."""
    sink = io.BytesIO()
    Image.new("1" if kind == "PNG" else "L", (side, side)).save(sink, kind)
    return sink.getvalue()


def packed_zeros(megabytes: int, head: bytes = b"") -> bytes:
    """Some bytes and many megabytes of zeros, compressed."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(head), *(packer.compress(bytes(1 << 20)) for _ in range(megabytes))]) + (
        packer.flush()
    )


def png_with_packed_chunk(kind: str, megabytes: int) -> bytes:
    """A PNG with a comment (zTXt) or colour profile (iCCP) that unpacks to many megabytes."""
    plain = still_picture("PNG")
    body = b"Comment\x00\x00" + packed_zeros(megabytes)
    chunk = kind.encode() + body
    packed = struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return plain[:33] + packed + plain[33:]


def packed_movie_header(megabytes: int) -> bytes:
    """A QuickTime film whose header is compressed and unpacks to many megabytes."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + kind + body

    size = 8 + (megabytes << 20)
    packed = packed_zeros(megabytes, struct.pack(">I", size) + b"free")
    header = box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", size) + packed)
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"cmov", header))


def portrait(width: int = 640, height: int = 512, scale: float = 1.0, *, shift: int = 0) -> Pixels:
    """The public-domain portrait that ships with scikit-image on a grey ground; its face is 110 px at scale 1."""
    from skimage.data import astronaut  # noqa: PLC0415 - heavy, and only face tests need it

    source = Image.fromarray(astronaut())
    source = source.resize((max(1, round(512 * scale)),) * 2, Image.Resampling.LANCZOS)
    ground = Image.new("RGB", (width, height), (128, 128, 128))
    ground.paste(source, ((width - source.width) // 2 + shift, (height - source.height) // 2))
    return np.asarray(ground, dtype=np.uint8)
