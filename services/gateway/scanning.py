"""First pass over a clip: list its pictures without decoding them, and decode its sound.

The list makes sampling exact for any frame rate, container or damage, and says which groups of pictures
need decoding at all, so long clips cost little without any seeking.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from services.common.errors import LimitExceededError
from services.common.media import AudioTrack
from services.gateway.containers import PacketReader, Streams, microseconds
from services.gateway.limits import DecodeLimits, Watch
from services.gateway.sampling import MICROSECONDS
from services.gateway.sound import SoundAssembler

_DECODE_TIMES_ONLY = frozenset({"avi", "asf", "asf_o"})
_GUESSED_DURATION = frozenset({"mp3", "mpeg", "mpegts"})
_SHORTFALL_US = 500_000
_SHORTFALL_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Picture:
    """One packet of the video stream, in decoding order; times are those of the container's clock.

    ``shown`` is False for pictures that only help to decode others.
    """

    time_us: int
    key: bool
    shown: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """What the first pass found. ``end_us`` is where pictures and sound end, on the container's clock.

    ``interrupted`` says that the damage lies inside: intact packets came after it.
    """

    pictures: tuple[Picture, ...]
    audio: AudioTrack | None
    start_us: int
    end_us: int
    damaged: bool
    interrupted: bool

    @property
    def shown_times(self) -> tuple[int, ...]:
        """Presentation times, strictly increasing."""
        return tuple(sorted({picture.time_us for picture in self.pictures if picture.shown}))


def times_follow_decoding(container: InputContainer) -> bool:
    """Whether a container stores decoding times alone: its pictures are shown in sorted order of those."""
    return container.format.name in _DECODE_TIMES_ONLY


def scan(container: InputContainer, streams: Streams, watch: Watch) -> Scan:
    """Read every packet once.

    Raises:
        LimitExceededError: too long, or too many pictures.
        DeadlineError: too slow.
        DecodingCancelledError: the caller has gone.
    """
    limits = watch.limits
    reader = PacketReader(container)
    listing = _Listing(limits, _time_base(streams.video), by_decoding=times_follow_decoding(container))
    sound = SoundAssembler(_time_base(streams.audio), limits.max_duration_us)
    sound_damaged = sound_resumed = False
    for packet in reader.packets(streams.video, streams.audio):
        watch.check()
        if streams.video is not None and packet.stream_index == streams.video.index:
            listing.add(packet)
        elif streams.audio is not None:
            intact = _decode_sound(streams.audio, packet, sound)
            sound_resumed |= sound_damaged and intact
            sound_damaged |= not intact
    if streams.audio is not None:
        sound_damaged |= not _decode_sound(streams.audio, None, sound)
    pictures = tuple(listing.pictures)
    track = sound.finish()
    starts = [picture.time_us for picture in pictures if picture.shown] + ([track.start_us] if track else [])
    ends = [end for end in (listing.end_us, sound.end_us) if end is not None]
    start_us, end_us = min(starts, default=0), max(ends, default=0)
    _check_span(end_us - start_us, limits)
    short = _is_short(container, streams, end_us - start_us, len(pictures))
    damaged = reader.damaged or sound_damaged or sound.damaged or short
    interrupted = reader.resumed or sound_resumed
    return Scan(pictures, track, start_us, end_us, damaged, interrupted)


class _Listing:
    """Collects the pictures of the video stream within limits."""

    def __init__(self, limits: DecodeLimits, time_base: Fraction, *, by_decoding: bool) -> None:
        self._limits = limits
        self._time_base = time_base
        self._by_decoding = by_decoding
        self.pictures: list[Picture] = []
        self.end_us: int | None = None

    def add(self, packet: Packet[Stream]) -> None:
        ticks = packet.dts if self._by_decoding or packet.pts is None else packet.pts
        base = self._time_base
        last = self.pictures[-1].time_us if self.pictures else 0
        time_us = last if ticks is None else microseconds(ticks, base)
        shown = ticks is not None and not packet.is_discard
        self.pictures.append(Picture(time_us, packet.is_keyframe, shown))
        if shown:
            self.end_us = max(self.end_us or time_us, time_us + microseconds(packet.duration or 0, base))
            _check_span(abs(time_us - self.pictures[0].time_us), self._limits)
        if len(self.pictures) > self._limits.max_frames:
            raise LimitExceededError(
                f"the clip has more than {self._limits.max_frames} pictures", reason="TOO_MANY_FRAMES"
            )


def decode_runs(pictures: Sequence[Picture], wanted: Iterable[int]) -> list[range]:
    """Stretches of packets, in decoding order, that must be decoded to see the pictures wanted.

    Each run starts at a key picture that is shown no later than the picture wanted, so that pictures which
    lead an open group are decoded with the group they refer to.
    """
    places = {picture.time_us: place for place, picture in enumerate(pictures) if picture.shown}
    keys = [place for place, picture in enumerate(pictures) if picture.key] or [0]
    runs: list[range] = []
    for place in sorted(places[time] for time in wanted):
        if runs and place < runs[-1].stop:
            continue
        start = _key_before(pictures, keys, place)
        if runs and start <= runs[-1].stop:
            runs[-1] = range(runs[-1].start, place + 1)
        else:
            runs.append(range(start, place + 1))
    return runs


def _key_before(pictures: Sequence[Picture], keys: Sequence[int], place: int) -> int:
    at = bisect_right(keys, place) - 1
    while at > 0 and pictures[keys[at]].time_us > pictures[place].time_us:
        at -= 1
    return keys[max(at, 0)] if keys[0] <= place else 0


def _time_base(stream: Stream | None) -> Fraction:
    found = stream.time_base if stream is not None else None
    return found or Fraction(1, MICROSECONDS)


def _decode_sound(stream: AudioStream, packet: Packet[Stream] | None, sound: SoundAssembler) -> bool:
    """Decode one packet, or what is left when there is none; False when it is damaged."""
    try:
        for frame in stream.decode(packet):
            sound.add(frame)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _is_short(container: InputContainer, streams: Streams, found_us: int, found_pictures: int) -> bool:
    """Whether the container's header promises clearly more than there is."""
    if container.format.name in _GUESSED_DURATION:
        return False
    if container.format.name == "avi" and streams.video is not None:
        # FFmpeg corrects the length of a cut AVI, but not the number of pictures that its header states.
        return found_pictures < (1 - _SHORTFALL_SHARE) * streams.video.frames - 1
    promised = [
        microseconds(stream.duration, stream.time_base)
        for stream in (streams.video, streams.audio)
        if stream is not None and stream.duration is not None and stream.time_base is not None
    ]
    if not promised and container.duration is not None:
        promised = [container.duration]
    missing = max(promised, default=0) - found_us
    return missing > max(_SHORTFALL_US, _SHORTFALL_SHARE * found_us)


def _check_span(span_us: int, limits: DecodeLimits) -> None:
    if span_us > limits.max_duration_us:
        limit = limits.max_duration_us // MICROSECONDS
        raise LimitExceededError(f"the clip is longer than {limit} seconds", reason="DURATION_TOO_LONG")
