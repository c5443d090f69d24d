"""The request to the visual service, put together by hand, is what protobuf would have written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonafide.v1 import evidence_pb2, media_pb2, visual_pb2
from services.common.converters import frame_from_proto
from services.common.evidence import VISUAL_BRANCHES, Branch
from services.common.media import Frame
from services.gateway.faces_request import faces_request


def picture(height: int, width: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_protobuf(survey: list[Frame], dense: list[Frame], branches: frozenset[Branch]) -> bytes:
    def message(frame: Frame) -> media_pb2.VideoFrame:
        height, width = frame.pixels.shape[:2]
        return media_pb2.VideoFrame(time_us=frame.time_us, width=width, height=height, rgb=frame.pixels.tobytes())

    return visual_pb2.AnalyzeFacesRequest(
        survey=map(message, survey),
        dense=map(message, dense),
        branches=[evidence_pb2.Branch.Value(f"BRANCH_{branch.name}") for branch in sorted(branches)],
    ).SerializeToString()


@given(
    st.lists(st.tuples(st.integers(0, 2**62), st.integers(1, 70), st.integers(1, 70)), max_size=4),
    st.integers(0, 4),
    st.frozensets(st.sampled_from(sorted(VISUAL_BRANCHES))),
)
def test_says_what_protobuf_says(sizes: list[tuple[int, int, int]], first: int, branches: frozenset[Branch]) -> None:
    frames = [Frame(time, picture(height, width, time % 1000)) for time, height, width in sizes]
    written = faces_request(frames[:first], frames[first:], branches)
    expected = visual_pb2.AnalyzeFacesRequest.FromString(by_protobuf(frames[:first], frames[first:], branches))
    assert visual_pb2.AnalyzeFacesRequest.FromString(written) == expected
    assert len(written) == expected.ByteSize()


@pytest.mark.parametrize("turned", [lambda pixels: pixels[:, ::-1], np.rot90, lambda pixels: pixels[::2, ::3]])
def test_pixels_that_do_not_lie_in_a_row_arrive_in_order(turned: object) -> None:
    pixels = turned(picture(40, 60))  # type: ignore[operator]
    request = visual_pb2.AnalyzeFacesRequest.FromString(faces_request([Frame(5, pixels)], [], frozenset()))
    assert np.array_equal(frame_from_proto(request.survey[0]).pixels, pixels)
