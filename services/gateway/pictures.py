"""From FFmpeg's pictures to upright RGB: colour, scale and display rotation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import atan2, pi
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from services.gateway.sampling import SamplingPlan, fit

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a coded picture is shown: mirrored left to right first, then turned clockwise in quarters."""

    quarter_turns: int = 0
    mirrored: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """Read a frame's display matrix (ISO/IEC 14496-12, 8.2.2); upright when there is none.

        PyAV ties a frame whose side data was read into a cycle: its memory then waits for the garbage collector.
        """
        try:
            found = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:  # the frame also carries data of a kind that PyAV has no name for
            return cls(round(-frame.rotation / 90) % 4)
        if found is None:
            return cls()
        across_x, across_y, _, down_x, down_y = np.frombuffer(bytes(cast("SideData", found)), dtype="<i4")[:5].tolist()
        mirrored = across_x * down_y - across_y * down_x < 0
        if mirrored:
            across_x, across_y = -across_x, -across_y
        return cls(round(atan2(across_y, across_x) / (pi / 2)) % 4, mirrored)

    @classmethod
    def of_exif(cls, value: int) -> Orientation:
        """Read an EXIF orientation, 1 to 8 (CIPA DC-008, 4.6.5); upright for any other number."""
        mirrored = value in {2, 4, 5, 7}
        return cls({3: 2, 4: 2, 5: 3, 6: 1, 7: 1, 8: 3}.get(value, 0), mirrored)

    @property
    def degrees(self) -> int:
        """Clockwise degrees: 0, 90, 180 or 270."""
        return 90 * self.quarter_turns

    def apply(self, pixels: Pixels) -> Pixels:
        """Turn uint8 [height, width, 3] upright; contiguous."""
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, -self.quarter_turns))

    def displayed(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as shown."""
        return (height, width) if self.quarter_turns % 2 else (width, height)


class PictureConverter:
    """Makes survey and dense pictures out of decoded frames. One per decode: it keeps scalers."""

    def __init__(self, plan: SamplingPlan) -> None:
        self._plan = plan
        self._survey = VideoReformatter()
        self._shrink = VideoReformatter()
        self._colour = VideoReformatter()

    def survey(self, frame: av.VideoFrame, orientation: Orientation) -> Pixels:
        """Upright uint8 RGB [height, width, 3] at native resolution, within the plan's survey side."""
        width, height = fit(frame.width, frame.height, max_side=self._plan.survey_side)
        picture = _reformat(self._survey, frame, width, height, "rgb24")
        return orientation.apply(_pixels(picture))

    def dense(self, frame: av.VideoFrame, orientation: Orientation) -> Pixels:
        """The same within the plan's dense bounds.

        Pictures with subsampled chroma are shrunk before they become RGB, which takes a third of the time.
        """
        width, height = fit(
            frame.width, frame.height, max_side=self._plan.dense_side, max_pixels=self._plan.dense_pixels
        )
        small = frame
        if (width, height) != (frame.width, frame.height) and "420" in frame.format.name:
            small = _reformat(self._shrink, frame, width, height, "yuv420p")
        picture = _reformat(self._colour, small, width, height, "rgb24")
        return orientation.apply(_pixels(picture))


def _reformat(
    reformatter: VideoReformatter, frame: av.VideoFrame, width: int, height: int, pixel_format: str
) -> av.VideoFrame:
    """Scale and convert by the colour matrix that the frame states, or by BT.601 when it states nonsense."""
    as_stated = partial(
        reformatter.reformat, frame, width, height, pixel_format, interpolation=Interpolation.AREA, threads=1
    )
    try:
        return as_stated()
    except av.FFmpegError:
        return as_stated(
            src_colorspace=Colorspace.ITU601, dst_colorspace=Colorspace.ITU601, src_color_range=ColorRange.MPEG
        )


def _pixels(picture: av.VideoFrame) -> Pixels:
    return np.asarray(picture.to_ndarray(), dtype=np.uint8)
