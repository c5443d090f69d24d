"""The ways in beside the plain upload, over real gRPC: uploads in pieces, URIs, batches."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from bonafide.v1 import analysis_pb2, upload_pb2, upload_pb2_grpc
from deploy.local.authority import Authority
from services.common.status import details_of, error_reason
from services.gateway.fetching import Fetcher
from services.gateway.settings import GatewaySettings
from tests.gateway.https_host import Host, ok
from tests.gateway.stand_ins import Visual
from tests.gateway.test_fetching import HERE, Fetching
from tests.gateway.test_service import CLIP, LIMIT, Stack, make_model

PIECE = 10_000


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    make_model(tmp_path / "models")
    return Stack(tmp_path / "models", spool_directory=tmp_path / "spool", batch_items=5, batch_concurrency=2)


def stretch(upload_id: str, offset: int, data: bytes) -> Iterator[upload_pb2.SendChunksRequest]:
    yield upload_pb2.SendChunksRequest(start=upload_pb2.UploadStart(upload_id=upload_id, offset=offset))
    for place in range(0, len(data), PIECE):
        yield upload_pb2.SendChunksRequest(chunk=data[place : place + PIECE])


def uploads(stack: Stack) -> Any:
    return upload_pb2_grpc.UploadServiceStub(stack.channel)


async def arrived(stub: Any, upload_id: str, wanted: int) -> bool:
    """Wait until so many bytes have arrived."""
    for _ in range(500):
        answer = await stub.GetUpload(upload_pb2.GetUploadRequest(upload_id=upload_id), timeout=10)
        if answer.upload.received_bytes == wanted:
            return True
        await asyncio.sleep(0.02)
    return False


async def refused_stretch(
    stack: Stack, messages: Iterator[upload_pb2.SendChunksRequest]
) -> tuple[grpc.StatusCode, str]:
    """How a stretch of an upload is refused."""
    return await stack.refused(
        lambda channel: upload_pb2_grpc.UploadServiceStub(channel).SendChunks(messages, timeout=10)
    )


async def sent(stack: Stack, data: bytes = CLIP) -> str:
    """A whole upload of the stack; its id."""
    stub = uploads(stack)
    created = await stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=len(data)), timeout=10)
    upload_id = str(created.upload.upload_id)
    answer = await stub.SendChunks(stretch(upload_id, 0, data), timeout=10)
    assert answer.upload.complete
    return upload_id


async def reason_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), error_reason(refused.value)


async def analysed(stack: Stack, **options: Any) -> analysis_pb2.Analysis:
    opening = analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(**options))
    return (await stack.analyze(iter([opening])))[-1].analysis


async def test_a_dropped_connection_costs_only_what_was_on_its_way(stack: Stack) -> None:
    half = len(CLIP) // 2 // PIECE * PIECE

    async def breaking(upload_id: str) -> AsyncIterator[upload_pb2.SendChunksRequest]:
        for message in stretch(upload_id, 0, CLIP[:half]):
            yield message
        await asyncio.sleep(60)

    async with stack:
        stub = uploads(stack)
        created = await stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=len(CLIP)), timeout=10)
        upload_id = created.upload.upload_id
        assert created.upload.expire_time.seconds
        call = stub.SendChunks(breaking(upload_id), timeout=30)
        assert await arrived(stub, upload_id, half)
        call.cancel()
        assert await stack.refusal(iter([_by_id(upload_id)])) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "UPLOAD_INCOMPLETE",
        )
        last = await stub.SendChunks(stretch(upload_id, half, CLIP[half:]), timeout=10)
        assert last.upload.complete
        analysis = await analysed(stack, upload_id=upload_id, request_id="again")
        plain = (await stack.analyze(_plain(CLIP)))[-1].analysis
    assert analysis.request_id == "again"
    assert analysis.media.sha256 == plain.media.sha256
    assert analysis.media.size_bytes == len(CLIP)


async def test_uploads_are_refused_by_their_typed_reasons(stack: Stack) -> None:
    async with stack:
        stub = uploads(stack)
        upload_id = (await stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=100))).upload.upload_id
        wrong = await refused_stretch(stack, stretch(upload_id, 7, b"x"))
        assert wrong == (grpc.StatusCode.OUT_OF_RANGE, "OFFSET_MISMATCH")
        over = await refused_stretch(stack, stretch(upload_id, 0, bytes(101)))
        assert over == (grpc.StatusCode.OUT_OF_RANGE, "UPLOAD_OVERFLOW")
        headless = await refused_stretch(stack, iter(list(stretch(upload_id, 0, b"x"))[1:]))
        assert headless == (grpc.StatusCode.INVALID_ARGUMENT, "START_MISSING")
        empty = [*stretch(upload_id, 0, b""), upload_pb2.SendChunksRequest(chunk=b"")]
        assert (await refused_stretch(stack, iter(empty)))[1] == "INVALID_CHUNK"
        large = stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=LIMIT + 1))
        assert await reason_of(large) == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_TOO_LARGE")
        nothing = stub.CreateUpload(upload_pb2.CreateUploadRequest())
        assert await reason_of(nothing) == (grpc.StatusCode.INVALID_ARGUMENT, "EMPTY_INPUT")
        await stub.DeleteUpload(upload_pb2.DeleteUploadRequest(upload_id=upload_id))
        gone = stub.GetUpload(upload_pb2.GetUploadRequest(upload_id=upload_id))
        assert await reason_of(gone) == (grpc.StatusCode.NOT_FOUND, "UPLOAD_NOT_FOUND")
        declared = await stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=len(CLIP), sha256="ab" * 32))
        lying = await refused_stretch(stack, stretch(declared.upload.upload_id, 0, CLIP))
        assert lying == (grpc.StatusCode.INVALID_ARGUMENT, "HASH_MISMATCH")


async def test_a_wrong_field_is_named_by_its_path(stack: Stack) -> None:
    items = [{"uri": "https://a.example/b"}, {"uri": "gopher://a/b"}]
    async with stack:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _batch(stack, items)
        neither = await reason_of(_batch(stack, [{}]))
        both = await reason_of(_batch(stack, [{"uri": "https://a.example/b", "options": {"upload_id": "ab" * 16}}]))
    details = details_of(refused.value)
    assert details.reason == "INVALID_URI"
    assert [violation.field for violation in details.violations] == ["items[1].uri"]
    assert neither == both == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SOURCE")


async def test_uris_are_off_unless_the_operator_lists_them(stack: Stack) -> None:
    async with stack:
        for uri in ("https://example.org/a.mp4", "s3://bucket/key"):
            refused = await reason_of(_fetched(stack, uri))
            assert refused == (grpc.StatusCode.PERMISSION_DENIED, "URI_NOT_ALLOWED")


async def test_a_declared_hash_is_held_against_the_bytes(stack: Stack) -> None:
    right = hashlib.sha256(CLIP).hexdigest()
    async with stack:
        assert (await stack.analyze(_plain(CLIP, sha256=right)))[-1].analysis.media.sha256 == right
        refused = await stack.refusal(_plain(CLIP, sha256="ab" * 32))
        assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "HASH_MISMATCH")


async def test_a_stretch_that_trickles_is_ended_and_what_came_is_kept(tmp_path: Path) -> None:
    make_model(tmp_path / "models")

    async def trickling(upload_id: str) -> AsyncIterator[upload_pb2.SendChunksRequest]:
        for message in stretch(upload_id, 0, CLIP[:PIECE]):
            yield message
        await asyncio.sleep(60)

    async with Stack(tmp_path / "models", spool_directory=tmp_path / "spool", upload_idle_seconds=0.2) as stack:
        stub = uploads(stack)
        created = await stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=len(CLIP)), timeout=10)
        upload_id = created.upload.upload_id
        refused = await reason_of(stub.SendChunks(trickling(upload_id), timeout=30))
        kept = await stub.GetUpload(upload_pb2.GetUploadRequest(upload_id=upload_id))
    assert refused == (grpc.StatusCode.DEADLINE_EXCEEDED, "UPLOAD_TOO_SLOW")
    assert kept.upload.received_bytes == PIECE


async def test_pieces_take_places_of_uploads_too(tmp_path: Path) -> None:
    make_model(tmp_path / "models")
    let_go = asyncio.Event()

    async def waiting(upload_id: str) -> AsyncIterator[upload_pb2.SendChunksRequest]:
        for message in stretch(upload_id, 0, b"x"):
            yield message
        await let_go.wait()

    async with Stack(tmp_path / "models", spool_directory=tmp_path / "spool", uploads=1) as stack:
        stub = uploads(stack)
        upload_id = (await stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=9), timeout=10)).upload.upload_id
        call = stub.SendChunks(waiting(upload_id), timeout=30)
        assert await arrived(stub, upload_id, 1)
        refused = await refused_stretch(stack, stretch(upload_id, 1, b"x"))
        assert await stack.refusal(_plain(CLIP)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOADS_FULL")
        let_go.set()
        assert (await call).upload.received_bytes == 1
        assert (await stack.analyze(_plain(CLIP)))[-1].HasField("analysis")
    assert refused == (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPLOADS_FULL")


async def test_a_clip_is_fetched_and_judged(stack: Stack, tmp_path: Path) -> None:
    """Settings as of an operator, but for a guard that lets the one address of this test through."""
    authority = Authority()
    host = Host(authority.issue("clips", tmp_path), {"/clip.mp4": ok(CLIP), "/text": ok(b"nothing that is media")})

    class Reaching(GatewaySettings):
        def fetcher(self) -> Fetcher:
            return Fetching(authority, host).fetcher

    stack.kind = Reaching
    async with host.listening(HERE), stack:
        uri = f"https://clips.bonafide:{host.port}"
        events = await _fetched(stack, f"{uri}/clip.mp4")
        missing = await reason_of(_fetched(stack, f"{uri}/missing"))
        endings = await _batch(stack, [{"uri": f"{uri}/clip.mp4"}, {"uri": f"{uri}/text"}])
    assert events[0].progress.stage == analysis_pb2.STAGE_RECEIVING
    assert events[-1].analysis.media.sha256 == hashlib.sha256(CLIP).hexdigest()
    assert missing == (grpc.StatusCode.NOT_FOUND, "URI_NOT_FOUND")
    assert {ending.index: ending.status.code for ending in endings} == {0: 0, 1: 3}


async def test_a_batch_answers_each_item_by_itself(stack: Stack) -> None:
    async with stack:
        whole = await sent(stack)
        text = await sent(stack, b"nothing that is media")
        items = [
            {"options": {"upload_id": whole, "request_id": "good"}},
            {"options": {"upload_id": text, "request_id": "text"}},
            {"options": {"upload_id": "ab" * 16}},
            {"uri": "https://example.org/a.mp4"},
            {"options": {"upload_id": whole, "branches": [4]}},
        ]
        endings = {ending.index: ending for ending in await _batch(stack, items)}
        too_many = await reason_of(_batch(stack, items + items))
    assert sorted(endings) == [0, 1, 2, 3, 4]
    assert [endings[index].status.code for index in range(5)] == [0, 3, 5, 7, 0]
    assert endings[0].request_id == endings[0].analysis.request_id == "good"
    assert endings[2].request_id
    assert not endings[1].HasField("analysis")
    assert endings[4].analysis.media.sha256 == endings[0].analysis.media.sha256
    assert too_many == (grpc.StatusCode.FAILED_PRECONDITION, "BATCH_TOO_LARGE")


async def test_hanging_up_on_a_batch_cancels_what_runs_and_begins_nothing_more(stack: Stack) -> None:
    stack.visual = Visual(seconds=60)
    async with stack:
        upload_id = await sent(stack)
        request = analysis_pb2.BatchAnalyzeRequest(items=[{"options": {"upload_id": upload_id}} for _ in range(5)])
        call = stack.stub.BatchAnalyze(request, timeout=30)
        reading = asyncio.create_task(anext(aiter(call)))
        await asyncio.wait_for(stack.visual.begun.wait(), 20)
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        for _ in range(100):
            if stack.visual.cancelled:
                break
            await asyncio.sleep(0.05)
        assert stack.visual.cancelled
        await asyncio.sleep(0.3)
        assert len(stack.visual.asked) <= 2


async def test_every_item_of_a_batch_that_runs_out_of_time_is_answered(stack: Stack) -> None:
    stack.visual = Visual(seconds=60)
    async with stack:
        upload_id = await sent(stack)
        items = [{"options": {"upload_id": upload_id, "branches": [1]}} for _ in range(5)]
        endings = await _batch(stack, items, timeout=6.0)
    assert len(endings) == 5
    assert all(ending.status.code in {0, 4, 14} for ending in endings)


def _by_id(upload_id: str) -> analysis_pb2.AnalyzeRequest:
    return analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(upload_id=upload_id))


def _plain(data: bytes, **options: Any) -> Iterator[analysis_pb2.AnalyzeRequest]:
    yield analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(**options))
    yield analysis_pb2.AnalyzeRequest(chunk=data)


async def _fetched(stack: Stack, uri: str) -> list[analysis_pb2.AnalyzeUriResponse]:
    request = analysis_pb2.AnalyzeUriRequest(uri=uri)
    return [event async for event in stack.stub.AnalyzeUri(request, timeout=20)]


async def _batch(stack: Stack, items: list[Any], timeout: float = 30.0) -> list[analysis_pb2.BatchAnalyzeResponse]:
    request = analysis_pb2.BatchAnalyzeRequest(items=items)
    return [ending async for ending in stack.stub.BatchAnalyze(request, timeout=timeout)]
