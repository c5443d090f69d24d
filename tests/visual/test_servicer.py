"""The visual service over a real gRPC connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from bonafide.v1 import evidence_pb2, media_pb2, visual_pb2, visual_pb2_grpc
from services.common.status import error_reason
from services.visual.detection import Picture
from services.visual.pipeline import VisualPipeline
from services.visual.servicer import VisualServicer


@pytest.fixture
async def stub(pipeline: VisualPipeline) -> AsyncIterator[visual_pb2_grpc.VisualServiceAsyncStub]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    visual_pb2_grpc.add_VisualServiceServicer_to_server(VisualServicer(pipeline, 60.0), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield visual_pb2_grpc.VisualServiceStub(channel)  # type: ignore[misc]
    await server.stop(None)


async def test_a_portrait_travels_there_and_its_evidence_back(
    stub: visual_pb2_grpc.VisualServiceAsyncStub, portrait: Picture
) -> None:
    height, width = portrait.shape[:2]
    survey = [
        media_pb2.VideoFrame(time_us=index * 500_000, width=width, height=height, rgb=portrait.tobytes())
        for index in range(3)
    ]
    answer = await stub.AnalyzeFaces(visual_pb2.AnalyzeFacesRequest(survey=survey), timeout=60)
    assert [report.branch for report in answer.reports] == [
        evidence_pb2.BRANCH_PATCH,
        evidence_pb2.BRANCH_FRAME,
        evidence_pb2.BRANCH_TEMPORAL,
    ]
    assert answer.reports[0].outcome == evidence_pb2.OUTCOME_SCORED
    assert answer.reports[2].outcome == evidence_pb2.OUTCOME_NOT_DEPLOYED
    assert answer.tracks[0].detections == 3
    assert not answer.tracks[0].behaviour.HasField("blinks")


@pytest.mark.parametrize(
    ("request_message", "reason"),
    [
        (visual_pb2.AnalyzeFacesRequest(survey=[media_pb2.VideoFrame(width=4, height=4, rgb=b"short")]), "BAD_FRAME"),
        (
            visual_pb2.AnalyzeFacesRequest(
                dense=[media_pb2.VideoFrame(time_us=time_us, width=1, height=1, rgb=b"rgb") for time_us in (5, 4)]
            ),
            "BAD_FRAME",
        ),
        (visual_pb2.AnalyzeFacesRequest(branches=[evidence_pb2.BRANCH_AUDIO]), "UNKNOWN_BRANCH"),
    ],
)
async def test_broken_requests_are_refused(
    stub: visual_pb2_grpc.VisualServiceAsyncStub, request_message: visual_pb2.AnalyzeFacesRequest, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.AnalyzeFaces(request_message, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_reason(caught.value) == reason
