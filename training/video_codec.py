"""Pictures through a real video codec and back, in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from services.common.media import Frame

RATE = 25


def through_video_codec(frames: Sequence[Frame], rate_factor: int, codec: str = "libx264") -> tuple[Frame, ...]:
    """Encode pictures one after the other and decode them again; times stay.

    Args:
        frames: pictures of one size.
        rate_factor: constant rate factor: 18 looks perfect, 23 is usual, 40 is poor.
        codec: FFmpeg's name of the encoder.

    Returns:
        As many pictures of the same size. Chroma is halved, as video does.

    Raises:
        ValueError: the codec gave another number of pictures.
    """
    if not frames:
        return ()
    height, width = frames[0].pixels.shape[:2]
    # Chroma needs even sides: an odd one gets its edge repeated, and is cut back afterwards.
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    encoded = io.BytesIO()
    with av.open(encoded, "w", format="matroska") as container:
        settings = {"crf": str(rate_factor), "preset": "veryfast"}
        stream = cast("VideoStream", container.add_stream(codec, rate=RATE, options=settings))
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.pad(frame.pixels, padding, mode="edge"), format="rgb24")
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    encoded.seek(0)
    with av.open(encoded, "r") as container:
        pictures = [frame.to_ndarray(format="rgb24")[:height, :width] for frame in container.decode(video=0)]
    if len(pictures) != len(frames):
        raise ValueError(f"{len(pictures)} of {len(frames)} pictures came back from the codec")
    return tuple(
        Frame(frame.time_us, np.ascontiguousarray(pixels)) for frame, pixels in zip(frames, pictures, strict=True)
    )
