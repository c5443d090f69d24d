"""A caller who trickles is refused; one who is only waited for by us is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.common.errors import DeadlineError
from services.gateway.upload_pace import UploadPace, keep_pace


async def upload(sizes: list[int], pause: float = 0.0) -> AsyncIterator[bytes]:
    for size in sizes:
        await asyncio.sleep(pause)
        yield bytes(size)


async def received(chunks: AsyncIterator[bytes], pace: UploadPace) -> int:
    return sum([len(chunk) async for chunk in keep_pace(chunks, pace)])


async def test_a_steady_upload_passes_whole() -> None:
    pace = UploadPace(bytes_per_second=1000.0, window_seconds=0.02, idle_seconds=5.0)
    assert await received(upload([1000] * 20, pause=0.005), pace) == 20_000


async def test_a_trickle_is_refused() -> None:
    pace = UploadPace(bytes_per_second=1e6, window_seconds=0.02, idle_seconds=5.0)
    with pytest.raises(DeadlineError) as refused:
        await received(upload([1] * 10_000, pause=0.005), pace)
    assert refused.value.reason == "UPLOAD_TOO_SLOW"


async def test_silence_is_refused() -> None:
    async def silent() -> AsyncIterator[bytes]:
        yield b"head"
        await asyncio.Event().wait()

    with pytest.raises(DeadlineError) as refused:
        await received(silent(), UploadPace(0.0, 60.0, idle_seconds=0.02))
    assert refused.value.reason == "UPLOAD_TOO_SLOW"


async def test_our_own_slowness_is_not_the_callers() -> None:
    pace = UploadPace(bytes_per_second=1e6, window_seconds=0.01, idle_seconds=5.0)
    total = 0
    async for chunk in keep_pace(upload([1000] * 5), pace):
        total += len(chunk)
        await asyncio.sleep(0.01)
    assert total == 5000
