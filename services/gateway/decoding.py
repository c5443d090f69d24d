"""Decode once: one clip to the samples and the sound that all branches share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

from av.stream import Stream

from services.common.errors import InvalidInputError
from services.common.media import AudioTrack, Frame, MediaInfo
from services.gateway.containers import choose_streams, codec_name, open_container
from services.gateway.limits import DecodeLimits, Watch, WatchedReader
from services.gateway.recognition import Container, recognise
from services.gateway.sampling import MICROSECONDS, SamplingPlan
from services.gateway.scanning import Scan, scan
from services.gateway.stills import decode_still
from services.gateway.video import Samples, sample_video

_NO_PICTURES = Samples((), (), 0, 0, 0, damaged=False)


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """One clip, ready for the branches; all times start at its first picture, or at its sound if it has none.

    ``survey`` spreads over the clip, ``dense`` is one window; both in time order. ``info.size_bytes`` and
    ``info.sha256`` are left to who received the bytes.
    """

    survey: tuple[Frame, ...]
    dense: tuple[Frame, ...]
    audio: AudioTrack | None
    info: MediaInfo

    @property
    def size_bytes(self) -> int:
        """What its pictures and its sound hold in memory."""
        pictures = sum(frame.pixels.nbytes for frame in (*self.survey, *self.dense))
        return pictures + (self.audio.samples.nbytes if self.audio is not None else 0)


def never() -> bool:
    """Nobody cancels."""
    return False


def decode(
    source: BinaryIO,
    plan: SamplingPlan | None = None,
    limits: DecodeLimits | None = None,
    cancelled: Callable[[], bool] = never,
) -> DecodedClip:
    """Recognise and decode one file.

    Nothing is decoded before the container is recognised by its first bytes. Damaged packets are skipped
    and said so in ``info.partial``.

    Args:
        source: the file, seekable; its position is moved.
        plan: which pictures to take; the default plan when None.
        limits: what it may cost; the default limits when None.
        cancelled: asked often; once it answers True the decode ends.

    Raises:
        InvalidInputError: UNSUPPORTED_MEDIA, UNSUPPORTED_CODEC, NO_MEDIA or DAMAGED_MEDIA.
        LimitExceededError: TOO_MANY_PIXELS, DURATION_TOO_LONG or TOO_MANY_FRAMES.
        DeadlineError: DECODING_TOO_SLOW.
        DecodingCancelledError: ``cancelled`` answered True.
    """
    plan = plan or SamplingPlan()
    watch = Watch(limits or DecodeLimits(), cancelled)
    recognised = recognise(source)
    if recognised.still:
        samples, codec = decode_still(source, recognised, plan, watch)
        info = _picture_info(samples, recognised.name, codec)
        return DecodedClip(samples.survey, (), None, replace(info, still=True))
    return _decode_clip(source, recognised, plan, watch)


def _decode_clip(source: BinaryIO, recognised: Container, plan: SamplingPlan, watch: Watch) -> DecodedClip:
    source.seek(0)
    with open_container(WatchedReader(source, watch), recognised) as container:
        streams = choose_streams(container, watch.limits)
        found = scan(container, streams, watch)
        info = MediaInfo(container=recognised.name, audio_codec=_name(streams.audio))
        video_codec = _name(streams.video)
        partial = found.damaged or streams.unreadable
        interrupted = found.interrupted
    samples = _NO_PICTURES
    if found.shown_times:
        samples = _sample(source, recognised, found, plan, watch)
        partial |= samples.damaged
        interrupted |= samples.interrupted
    if not samples.survey and found.audio is None:
        raise InvalidInputError("nothing in the file could be decoded", reason="DAMAGED_MEDIA")
    if samples.survey:
        info = _picture_info(samples, info.container, video_codec, base=info)
        info = replace(info, frame_rate=_frame_rate(found.shown_times))
    return _on_own_clock(samples, found, replace(info, partial=partial, interrupted=interrupted))


def _sample(
    source: BinaryIO,
    recognised: Container,
    found: Scan,
    plan: SamplingPlan,
    watch: Watch,
) -> Samples:
    # Opening anew costs under a millisecond and is exact for every format, which seeking back is not.
    source.seek(0)
    with open_container(WatchedReader(source, watch), recognised) as container:
        video = choose_streams(container, watch.limits).video
        return _NO_PICTURES if video is None else sample_video(container, video, found, plan, watch)


def _on_own_clock(samples: Samples, found: Scan, info: MediaInfo) -> DecodedClip:
    """Start all times at the first picture, or at the sound when there is no picture."""
    audio = found.audio
    start_of_sound = audio.start_us if audio is not None else 0
    zero = found.shown_times[0] if samples.survey else start_of_sound
    return DecodedClip(
        survey=tuple(Frame(frame.time_us - zero, frame.pixels) for frame in samples.survey),
        dense=tuple(Frame(frame.time_us - zero, frame.pixels) for frame in samples.dense),
        audio=AudioTrack(audio.start_us - zero, audio.samples) if audio is not None else None,
        info=replace(info, duration_us=max(found.end_us - zero, 0)),
    )


def _picture_info(samples: Samples, container: str, codec: str, base: MediaInfo | None = None) -> MediaInfo:
    times = {frame.time_us for frame in (*samples.survey, *samples.dense)}
    return replace(
        base or MediaInfo(partial=samples.damaged),
        container=container,
        video_codec=codec,
        width=samples.width,
        height=samples.height,
        rotation_degrees=samples.rotation_degrees,
        frames_sampled=len(times),
    )


def _frame_rate(times: tuple[int, ...]) -> float:
    if len(times) < 2:  # noqa: PLR2004
        return 0.0
    return (len(times) - 1) * MICROSECONDS / (times[-1] - times[0])


def _name(stream: Stream | None) -> str:
    return codec_name(stream) if stream is not None else ""
