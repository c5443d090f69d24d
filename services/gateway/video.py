"""Second pass over a clip: decode the groups of pictures that hold a sample, and nothing else."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from services.common.media import Frame
from services.gateway.containers import PacketReader, microseconds, prepare_decoder
from services.gateway.limits import Watch
from services.gateway.pictures import Orientation, PictureConverter
from services.gateway.sampling import MICROSECONDS, SamplingPlan
from services.gateway.scanning import Picture, Scan, decode_runs, times_follow_decoding


@dataclass(frozen=True, slots=True)
class Samples:
    """What the second pass gave; times are still those of the container's clock."""

    survey: tuple[Frame, ...]
    dense: tuple[Frame, ...]
    width: int
    height: int
    rotation_degrees: int
    damaged: bool
    interrupted: bool = False


def sample_video(
    container: InputContainer,
    stream: VideoStream,
    scan: Scan,
    plan: SamplingPlan,
    watch: Watch,
) -> Samples:
    """Decode the pictures that the plan asks for.

    Raises:
        DeadlineError: too slow.
        DecodingCancelledError: the caller has gone.
    """
    prepare_decoder(stream, watch.limits)
    times = scan.shown_times
    survey, dense = plan.survey_times(times), plan.dense_times(times)
    runs = decode_runs(scan.pictures, {*survey, *dense})
    decoder = _RunDecoder(container, stream, scan.pictures, watch)
    collector = _Collector(survey, dense, PictureConverter(plan))
    for time_us, frame in decoder.decode(runs):
        collector.offer(time_us, frame)
    return collector.samples(damaged=decoder.damaged, interrupted=decoder.resumed)


class _RunDecoder:
    """Decodes runs of packets, each from a clean start, and says when each picture is shown."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, pictures: Sequence[Picture], watch: Watch
    ) -> None:
        self._reader = PacketReader(container)
        self._stream = stream
        self._pictures = pictures
        self._watch = watch
        clock = _DecodeOrderClock if times_follow_decoding(container) else _PresentationClock
        self._clock = clock(stream.time_base or Fraction(1, MICROSECONDS))
        self._failed = False
        self.resumed = False

    @property
    def damaged(self) -> bool:
        """Whether a packet could not be read or decoded."""
        return self._failed or self._reader.damaged

    def decode(self, runs: Iterable[range]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Intact pictures of all runs with their times, in order of display."""
        packets = enumerate(zip(self._reader.packets(self._stream), self._pictures, strict=False))
        for run in runs:
            for place, (packet, picture) in packets:
                self._watch.check()
                if place >= run.start:
                    yield from self._decode_packet(packet, picture)
                if place == run.stop - 1:
                    break
            yield from self._drain()

    def _decode_packet(self, packet: Packet[Stream], picture: Picture) -> Iterator[tuple[int, av.VideoFrame]]:
        self._clock.fed(picture)
        try:
            yield from self._timed(self._stream.decode(packet))
        except av.FFmpegError:
            self._clock.lost(picture)
            self._failed = True

    def _drain(self) -> Iterator[tuple[int, av.VideoFrame]]:
        try:
            yield from self._timed(self._stream.decode(None))
        except av.FFmpegError:
            self._failed = True
        self._stream.codec_context.flush_buffers()
        self._clock.restart()

    def _timed(self, frames: Iterable[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        for frame in frames:
            time_us = self._clock.shown(frame)
            if frame.is_corrupt:
                self._failed = True
            elif time_us is not None:
                self.resumed |= self.damaged
                yield time_us, frame


class _PresentationClock:
    """For containers that store when pictures are shown."""

    def __init__(self, time_base: Fraction) -> None:
        # Frames that come out when the decoder is drained forget their own.
        self._time_base = time_base

    def fed(self, picture: Picture) -> None:
        """A packet goes into the decoder."""

    def lost(self, picture: Picture) -> None:
        """A packet gave no picture."""

    def restart(self) -> None:
        """The decoder was emptied."""

    def shown(self, frame: av.VideoFrame) -> int | None:
        """When a picture that came out is shown."""
        ticks = frame.pts if frame.pts is not None else frame.dts
        return None if ticks is None else microseconds(ticks, self._time_base)


class _DecodeOrderClock(_PresentationClock):
    """For containers that store when pictures are decoded: they come out in sorted order of those times."""

    def __init__(self, time_base: Fraction) -> None:
        super().__init__(time_base)
        self._waiting: list[int] = []

    def fed(self, picture: Picture) -> None:
        if picture.shown:
            heapq.heappush(self._waiting, picture.time_us)

    def lost(self, picture: Picture) -> None:
        if picture.time_us in self._waiting:
            self._waiting.remove(picture.time_us)
            heapq.heapify(self._waiting)

    def restart(self) -> None:
        self._waiting.clear()

    def shown(self, frame: av.VideoFrame) -> int | None:  # noqa: ARG002 - the frame's own time is made up
        return heapq.heappop(self._waiting) if self._waiting else None


class _Cursor:
    """Walks along the times wanted; a picture that is late stands in for those before it."""

    def __init__(self, times: Sequence[int]) -> None:
        self._times = times
        self._next = 0

    def takes(self, time_us: int) -> bool:
        start = self._next
        while self._next < len(self._times) and self._times[self._next] <= time_us:
            self._next += 1
        return self._next > start


class _Collector:
    """Picks survey and dense pictures out of the decoded ones."""

    def __init__(self, survey: Sequence[int], dense: Sequence[int], convert: PictureConverter) -> None:
        self._survey_cursor = _Cursor(survey)
        self._dense_cursor = _Cursor(dense)
        self._convert = convert
        self._survey: list[Frame] = []
        self._dense: list[Frame] = []
        self._last_us: int | None = None
        self._size = (0, 0)
        self._degrees = 0
        self._orientations: dict[int, Orientation] = {}
        self._failed = False

    def offer(self, time_us: int, frame: av.VideoFrame) -> None:
        if self._last_us is not None and time_us <= self._last_us:
            return
        self._last_us = time_us
        orientation = self._orientation(frame)
        if self._size == (0, 0):
            self._size = orientation.displayed(frame.width, frame.height)
            self._degrees = orientation.degrees
        try:
            if self._survey_cursor.takes(time_us):
                self._survey.append(Frame(time_us, self._convert.survey(frame, orientation)))
            if self._dense_cursor.takes(time_us):
                self._dense.append(Frame(time_us, self._convert.dense(frame, orientation)))
        except av.FFmpegError:
            self._failed = True

    def _orientation(self, frame: av.VideoFrame) -> Orientation:
        """Read in full from the first frame of each rotation only, because of what reading it costs in memory."""
        rotation = frame.rotation
        if rotation not in self._orientations:
            self._orientations[rotation] = Orientation.of(frame)
        return self._orientations[rotation]

    def samples(self, *, damaged: bool, interrupted: bool) -> Samples:
        width, height = self._size
        damaged |= self._failed
        pictures = tuple(self._survey), tuple(self._dense)
        return Samples(*pictures, width, height, self._degrees, damaged, interrupted or self._failed)
