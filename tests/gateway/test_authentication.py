"""Callers at a real door: API keys, quotas, and what is refused before the servicer hears of it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.channels import open_channel
from services.common.errors import ResourceExhaustedError
from services.common.status import details_of, error_reason
from services.gateway.api_keys import KeyFileError, KeyRing, new_key, read_keys
from services.gateway.authentication import CallerAuthentication
from services.gateway.quotas import Quota, QuotaBook
from tests.common.serving import NAME, Running, serving

Headers = Mapping[str, str]


@asynccontextmanager
async def door(keys: KeyRing | None, tokens: Any = None) -> AsyncIterator[tuple[Running, grpc.aio.Channel]]:
    authentication = CallerAuthentication(keys, tokens, QuotaBook(), Quota())
    async with (
        serving(admit=(authentication.admit,)) as running,
        open_channel(running.address, max_message_bytes=1 << 24) as channel,
    ):
        yield running, channel


def call(channel: grpc.aio.Channel, headers: Headers, policy: str = "") -> Any:
    stub = fusion_pb2_grpc.FusionServiceStub(channel)
    return stub.Fuse(fusion_pb2.FuseRequest(policy=policy), timeout=5, metadata=tuple(headers.items()))


async def refusal(channel: grpc.aio.Channel, headers: Headers) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(channel, headers)
    return refused.value.code(), error_reason(refused.value)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


async def test_a_key_names_its_caller_and_everything_else_is_unauthenticated(tmp_path: Path) -> None:
    text, kept = new_key("acme", Quota())
    file = write(tmp_path / "keys", "# keys", kept.line())
    assert text not in file.read_text()
    async with door(KeyRing(file)) as (running, channel):
        await call(channel, {"x-api-key": text})
        assert running.servicer.callers == ["key:acme"]
        unauthenticated = grpc.StatusCode.UNAUTHENTICATED
        assert await refusal(channel, {}) == (unauthenticated, "CREDENTIALS_MISSING")
        assert await refusal(channel, {"x-api-key": text[:-1]}) == (unauthenticated, "API_KEY_UNKNOWN")
        assert await refusal(channel, {"x-api-key": kept.sha256}) == (unauthenticated, "API_KEY_UNKNOWN")
        assert await refusal(channel, {"authorization": f"Bearer {text}"}) == (unauthenticated, "CREDENTIALS_MISSING")
        both = {"x-api-key": text, "authorization": "Bearer x"}
        assert await refusal(channel, both) == (unauthenticated, "CREDENTIALS_AMBIGUOUS")
        assert running.servicer.calls == 1


async def test_keys_come_and_go_with_their_file_and_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    (one, kept_one), (two, kept_two) = new_key("one", Quota()), new_key("two", Quota())
    file = write(tmp_path / "keys", kept_one.line())
    async with door(KeyRing(file)) as (_, channel):
        await call(channel, {"x-api-key": one})
        write(file, kept_one.line(), kept_two.line())
        await call(channel, {"x-api-key": two})
        write(file, kept_two.line(), "{")
        await call(channel, {"x-api-key": one})
        write(file, kept_two.line())
        assert (await refusal(channel, {"x-api-key": one}))[1] == "API_KEY_UNKNOWN"
        await call(channel, {"x-api-key": two})


async def test_health_needs_no_credential_and_reflection_does(tmp_path: Path) -> None:
    text, kept = new_key("acme", Quota())
    async with door(KeyRing(write(tmp_path / "keys", kept.line()))) as (_, channel):
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=NAME), timeout=5)
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _answer in reflection.ServerReflectionInfo(iter([question]), timeout=5):
                pass
        assert error_reason(refused.value) == "CREDENTIALS_MISSING"
        answers = reflection.ServerReflectionInfo(iter([question]), timeout=5, metadata=(("x-api-key", text),))
        listed = [each.name async for answer in answers for each in answer.list_services_response.service]
        assert NAME in listed


async def test_quotas_are_each_callers_own_and_say_when_to_try_again(tmp_path: Path) -> None:
    one, kept_one = new_key("one", Quota(requests_per_minute=2))
    two, kept_two = new_key("two", Quota(requests_per_minute=2))
    async with door(KeyRing(write(tmp_path / "keys", kept_one.line(), kept_two.line()))) as (running, channel):
        for _ in range(2):
            await call(channel, {"x-api-key": one})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel, {"x-api-key": one})
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = details_of(refused.value)
        assert details.reason == "QUOTA_RATE"
        assert details.retry_after_seconds is not None
        assert 0 < details.retry_after_seconds <= 30
        await call(channel, {"x-api-key": two})
        assert running.servicer.calls == 3


async def test_a_place_is_free_again_when_its_call_has_ended_or_was_cancelled(tmp_path: Path) -> None:
    text, kept = new_key("acme", Quota(concurrent=1))
    async with door(KeyRing(write(tmp_path / "keys", kept.line()))) as (running, channel):
        first = call(channel, {"x-api-key": text}, "slow")
        await running.servicer.called.acquire()
        assert await refusal(channel, {"x-api-key": text}) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "QUOTA_CONCURRENT",
        )
        await first
        second = call(channel, {"x-api-key": text}, "slow")
        await running.servicer.called.acquire()
        second.cancel()
        ends = asyncio.get_running_loop().time() + 5
        while asyncio.get_running_loop().time() < ends:
            try:
                await call(channel, {"x-api-key": text})
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)
            else:
                return
        pytest.fail("the cancelled call still holds its place")


async def test_a_stranger_cannot_make_the_door_read_its_message(tmp_path: Path) -> None:
    async with door(KeyRing(write(tmp_path / "keys", new_key("acme", Quota())[1].line()))) as (running, channel):
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        # Over the server's limit: had it been read, the answer would be about its size.
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Fuse(fusion_pb2.FuseRequest(policy="x" * (2 << 20)), timeout=5)
        assert error_reason(refused.value) == "CREDENTIALS_MISSING"
        assert running.servicer.calls == 0


def test_the_bucket_refills_evenly_and_idle_callers_are_forgotten() -> None:
    now = 0.0
    book = QuotaBook(clock=lambda: now)
    quota = Quota(requests_per_minute=60)
    for _ in range(60):
        book.enter("caller", quota)()
    with pytest.raises(ResourceExhaustedError) as refused:
        book.enter("caller", quota)
    assert refused.value.retry_after_seconds == pytest.approx(1.0)
    now = 1.0
    book.enter("caller", quota)()
    now = 100.0
    for number in range(5000):
        book.enter(f"caller {number}", quota)()
        now += 0.1
    assert len(book._usages) <= 4096


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ('{"name": "a b", "sha256": "' + "0" * 64 + '"}', "line 2.*a name is"),
        ('{"name": "a", "sha256": "00"}', "line 2.*64"),
        ('{"name": "a", "sha256": "' + "0" * 64 + '", "concurrent": -1}', "line 2.*whole"),
        ('{"name": "a", "key": "secret"}', "line 2.*unknown field"),
        ("[]", "line 2"),
    ],
)
def test_a_line_that_is_no_key_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(KeyFileError, match=message):
        read_keys(write(tmp_path / "keys", "# first", line))
