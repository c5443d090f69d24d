"""Opening a recognised container with FFmpeg, under guard, and choosing the streams to decode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from services.common.errors import InvalidInputError, LimitExceededError
from services.gateway.limits import DecodeLimits, WatchedReader
from services.gateway.recognition import Container
from services.gateway.sampling import MICROSECONDS

_VIDEO_CODECS = frozenset(
    {
        "h264", "hevc", "vp8", "vp9", "av1", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1",
        "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "flv1", "h263", "mjpeg", "prores",
        "dnxhd", "theora",
    }
)  # fmt: skip
_AUDIO_CODECS = frozenset(
    {
        "aac", "mp1", "mp2", "mp3", "opus", "vorbis", "flac", "alac", "ac3", "eac3", "wmav1", "wmav2",
        "wmapro", "amr_nb", "amr_wb", "speex", "pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_s16le",
        "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be",
        "pcm_f64le", "pcm_f64be", "adpcm_ms", "adpcm_ima_wav",
    }
)  # fmt: skip
_NOT_MOVING = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_READ_FAILURES_IN_A_ROW = 16
_NO_CODEC = "-"


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams to decode; ``unreadable`` when one is there whose codec is not taken."""

    video: VideoStream | None
    audio: AudioStream | None
    unreadable: bool = False


def open_container(source: WatchedReader, recognised: Container) -> InputContainer:
    """Open with exactly the recognised demuxer; no other file, protocol or decoder can be reached.

    FFmpeg would decode some pictures while probing, before any limit of ours holds. An empty list of
    codecs keeps it from that: parsers alone find what is needed (and opening takes under a millisecond).

    Raises:
        InvalidInputError: the container cannot be read (reason DAMAGED_MEDIA).
    """
    options = {
        "format_whitelist": recognised.demuxer,
        "protocol_whitelist": _NO_CODEC,
        "codec_whitelist": _NO_CODEC,
    }
    try:
        return av.open(source, "r", format=recognised.demuxer, options=options, metadata_errors="ignore")
    except av.FFmpegError as error:
        raise InvalidInputError(
            "the file is damaged or cut short: its container cannot be read", reason="DAMAGED_MEDIA"
        ) from error


def choose_streams(container: InputContainer, limits: DecodeLimits) -> Streams:
    """The main picture and sound; cover art and thumbnails are no video. All others are discarded.

    Raises:
        InvalidInputError: there is neither (NO_MEDIA), or none with a codec that is taken
            (UNSUPPORTED_CODEC).
        LimitExceededError: a picture would have too many pixels (TOO_MANY_PIXELS).
    """
    moving = [stream for stream in container.streams.video if not stream.disposition & _NOT_MOVING]
    videos = [stream for stream in moving if codec_name(stream) in _VIDEO_CODECS]
    sounds = [stream for stream in container.streams.audio if codec_name(stream) in _AUDIO_CODECS]
    video = max(videos, key=lambda stream: (_is_default(stream), stream.width * stream.height), default=None)
    audio = max(sounds, key=_is_default, default=None)
    if video is None and audio is None:
        if moving or container.streams.audio:
            raise InvalidInputError("the file's codecs cannot be analysed", reason="UNSUPPORTED_CODEC")
        raise InvalidInputError("the file holds neither moving pictures nor sound", reason="NO_MEDIA")
    if video is not None:
        check_pixels(video.width, video.height, limits)
    for stream in container.streams:
        if stream not in (video, audio):
            stream.discard = Discard.all
    unreadable = (video is None and bool(moving)) or (audio is None and bool(container.streams.audio))
    return Streams(video, audio, unreadable)


def check_pixels(width: int, height: int, limits: DecodeLimits) -> None:
    """Refuse a picture by its size as coded.

    Raises:
        LimitExceededError: over the limit (reason TOO_MANY_PIXELS).
    """
    if width * height > limits.max_pixels:
        raise LimitExceededError(
            f"a picture of {width} x {height} is over the limit of {limits.max_pixels} pixels",
            reason="TOO_MANY_PIXELS",
        )


def prepare_decoder(stream: VideoStream, limits: DecodeLimits) -> None:
    """Set a stream's decoder up before its first packet: pixel limit, threads, order of output."""
    options = {"max_pixels": str(limits.max_pixels)}
    if codec_name(stream) == "h264":
        # Probing did not decode, so nobody has measured how far pictures are reordered: take the
        # standard's word for it, which costs a little delay and never order.
        options["strict"] = "1"
    stream.codec_context.options = options
    stream.codec_context.thread_count = limits.threads
    stream.codec_context.thread_type = "AUTO"


def codec_name(stream: Stream) -> str:
    """FFmpeg's name of a stream's codec; empty when it knows none."""
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else ""


def microseconds(ticks: int, time_base: Fraction) -> int:
    """Ticks of a time base in microseconds, to the nearest."""
    scaled = ticks * time_base.numerator * MICROSECONDS
    return (2 * scaled + time_base.denominator) // (2 * time_base.denominator)


class PacketReader:
    """Reads a container's packets past damage.

    ``damaged`` says whether there was any, ``resumed`` whether intact packets came after it.
    """

    def __init__(self, container: InputContainer) -> None:
        self._container = container
        self.damaged = False
        self.resumed = False

    def packets(self, *streams: VideoStream | AudioStream | None) -> Iterator[Packet[Stream]]:
        """Packets of these streams in file order; stops after too many read errors in a row."""
        wanted = [stream for stream in streams if stream is not None]
        failures = 0
        while failures < _READ_FAILURES_IN_A_ROW:
            try:
                for packet in self._container.demux(*wanted):
                    failures = 0
                    if packet.is_corrupt:
                        self.damaged = True
                    elif packet.size:
                        self.resumed |= self.damaged
                        yield packet
            except av.FFmpegError:
                failures += 1
                self.damaged = True
            except IndexError:  # PyAV trips at the end over streams that only damage made appear
                self.damaged = True
                return
            else:
                return


def _is_default(stream: VideoStream | AudioStream) -> bool:
    return bool(stream.disposition & Disposition.default)
