"""Uploads in pieces, clips that the server fetches, and batches, with either client."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from bonafide import AsyncClient, Client, RetryPolicy, Uploaded, Uri, errors
from tests.bonafide.scripted import ScriptedGateway, ScriptedUploads, info, serving, status

QUICK = RetryPolicy(attempts=3, first_pause_seconds=0.01, longest_pause_seconds=0.02)
FILE = bytes(range(256)) * 16000  # sixteen chunks
DOWN = status(grpc.StatusCode.UNAVAILABLE, "not now", info("UNAVAILABLE"))


async def by_thread(address: str, do: Callable[[Any], Any]) -> Any:
    def run() -> Any:
        with Client(address, retries=QUICK) as client:
            found = do(client)
            return list(found) if hasattr(found, "__next__") else found

    return await asyncio.to_thread(run)


async def by_loop(address: str, do: Callable[[Any], Any]) -> Any:
    async with AsyncClient(address, retries=QUICK) as client:
        found = do(client)
        return [each async for each in found] if hasattr(found, "__anext__") else await found


both = pytest.mark.parametrize("using", [by_thread, by_loop], ids=["sync", "async"])


@both
async def test_an_upload_goes_on_from_where_it_was_cut(using: Any) -> None:
    sent: list[tuple[int, int]] = []
    uploads = ScriptedUploads(cuts=[300_000, 1, 600_000, 1, 1])
    gateway = ScriptedGateway()
    async with serving(gateway, uploads=uploads) as address:
        uploaded = await using(
            address, lambda client: client.upload(FILE, on_sent=lambda *each: sent.append(each), timeout=30)
        )
        analysis = await using(address, lambda client: client.analyze(uploaded, timeout=30))
        assert uploads.kept[uploaded.upload_id] == FILE
        await using(address, lambda client: client.delete_upload(uploaded))
    assert uploads.offsets[0] == 0
    assert len(uploads.offsets) == 6  # more than QUICK.attempts: each of these got further
    assert uploads.offsets == sorted(set(uploads.offsets))
    assert sent[-1] == (len(FILE), len(FILE))
    assert uploaded == Uploaded(uploaded.upload_id, len(FILE))
    assert uploads.kept == {}
    (call,) = gateway.calls
    assert call.options is not None
    assert (call.options.upload_id, call.data) == (uploaded.upload_id, b"")
    assert analysis.request_id == call.options.request_id


@both
async def test_an_upload_that_gets_nowhere_ends(using: Any) -> None:
    class Deaf(ScriptedUploads):
        async def SendChunks(self, requests: Any, context: Any) -> Any:  # noqa: ARG002, N802
            self.offsets.append(0)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    uploads = Deaf()
    async with serving(ScriptedGateway(), uploads=uploads) as address:
        with pytest.raises(errors.ServerUnreachableError):
            await using(address, lambda client: client.upload(FILE, timeout=30))
    assert len(uploads.offsets) == 2  # asking how far it got is a try, too


@both
async def test_what_has_no_size_cannot_be_uploaded(using: Any) -> None:
    async with serving(ScriptedGateway()) as address:
        with pytest.raises(errors.BadInputError) as failed:
            await using(address, lambda client: client.upload(b"", timeout=30))
    assert failed.value.reason == "UNKNOWN_SIZE"


@both
async def test_a_file_that_shrinks_is_not_waited_for(using: Any) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            self.truncate(len(FILE) // 2)
            return found

    async with serving(ScriptedGateway()) as address:
        with pytest.raises(errors.BadInputError) as failed:
            await using(address, lambda client: client.upload(Shrinking(FILE), timeout=30))
    assert failed.value.reason == "UNREADABLE_FILE"


@both
async def test_a_uri_is_named_and_nothing_is_sent(using: Any) -> None:
    gateway = ScriptedGateway([DOWN])
    async with serving(gateway) as address:
        analysis = await using(address, lambda client: client.analyze(Uri("https://a.test/b.mp4"), timeout=30))
    assert [call.data for call in gateway.calls] == [b"https://a.test/b.mp4"] * 2
    assert {call.options.request_id for call in gateway.calls if call.options} == {analysis.request_id}


@both
async def test_a_batch_that_is_cut_is_continued_with_what_is_open(using: Any) -> None:
    gateway = ScriptedGateway([DOWN, DOWN])
    clips = [Uri("https://a.test/0"), Uploaded("0" * 32), Uri("https://a.test/bad"), Uri("https://a.test/3")]
    async with serving(gateway) as address:
        results = await using(address, lambda client: client.batch(clips, timeout=30, policy="balanced"))
    assert [result.index for result in results] == [3, 2, 1, 0]
    assert [len(asked) for asked in gateway.batches] == [4, 3, 2]
    ids = gateway.batches[0]
    assert len(set(ids)) == 4
    assert gateway.batches[1:] == [ids[:3], ids[:2]]
    assert [result.request_id for result in results] == ids[::-1]
    by_index = {result.index: result for result in results}
    bad = by_index.pop(2)
    assert isinstance(bad.error, errors.BadInputError)
    assert (bad.error.reason, bad.analysis) == ("UNSUPPORTED_MEDIA", None)
    for result in by_index.values():
        assert result.analysis is not None
        assert result.analysis.request_id == result.request_id
