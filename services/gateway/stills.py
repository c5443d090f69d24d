"""Still pictures: their size is read from the header before anything is decoded, then one picture is made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import BinaryIO

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from services.common.errors import InvalidInputError
from services.common.media import Frame
from services.gateway.containers import PacketReader, check_pixels, codec_name, open_container
from services.gateway.headers import jpeg_orientation, jpeg_size, png_size, webp_size
from services.gateway.limits import Watch, WatchedReader
from services.gateway.pictures import Orientation, PictureConverter
from services.gateway.png import without_comments
from services.gateway.recognition import Container
from services.gateway.sampling import SamplingPlan
from services.gateway.video import Samples

_SizeReader = Callable[[BinaryIO], tuple[int, int] | None]
_SIZE_READERS: dict[str, _SizeReader] = {"png_pipe": png_size, "jpeg_pipe": jpeg_size, "webp_pipe": webp_size}


def picture_size(source: BinaryIO, recognised: Container) -> tuple[int, int]:
    """Width and height that a still's header states.

    Raises:
        InvalidInputError: the header is cut or broken (DAMAGED_MEDIA), or the picture is animated
            (UNSUPPORTED_MEDIA).
    """
    source.seek(0)
    size = _SIZE_READERS[recognised.demuxer](source)
    if size is None or 0 in size:
        raise _damaged()
    return size


def decode_still(source: BinaryIO, recognised: Container, plan: SamplingPlan, watch: Watch) -> tuple[Samples, str]:
    """Decode a still into a survey of one picture, and name its codec.

    Raises:
        InvalidInputError: it cannot be decoded.
        LimitExceededError: it has too many pixels.
        DeadlineError: it is too slow.
        DecodingCancelledError: the caller has gone.
    """
    check_pixels(*picture_size(source, recognised), watch.limits)
    orientation = Orientation.of_exif(jpeg_orientation(source)) if recognised.demuxer == "jpeg_pipe" else None
    source.seek(0)
    with (
        without_comments(source) if recognised.demuxer == "png_pipe" else nullcontext(source) as shown,
        open_container(WatchedReader(shown, watch), recognised) as container,
    ):
        if not container.streams.video:
            raise _damaged()
        stream = container.streams.video[0]
        stream.codec_context.options = {"max_pixels": str(watch.limits.max_pixels)}
        try:
            frame = _first_frame(container, stream, watch)
            orientation = orientation or Orientation.of(frame)
            picture = Frame(0, PictureConverter(plan).survey(frame, orientation))
        except av.FFmpegError as error:
            raise _damaged() from error
        width, height = orientation.displayed(frame.width, frame.height)
        samples = Samples((picture,), (), width, height, orientation.degrees, damaged=frame.is_corrupt)
        return samples, codec_name(stream)


def _first_frame(container: InputContainer, stream: VideoStream, watch: Watch) -> av.VideoFrame:
    for packet in PacketReader(container).packets(stream):
        watch.check()
        for frame in stream.decode(packet):
            return frame
    for frame in stream.decode(None):
        return frame
    raise _damaged()


def _damaged() -> InvalidInputError:
    return InvalidInputError("the picture is damaged beyond use", reason="DAMAGED_MEDIA")
