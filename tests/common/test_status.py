"""Errors become statuses and errors again, over real calls."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from bonafide.v1 import fusion_pb2, fusion_pb2_grpc
from services.common.errors import (
    AbortedError,
    BonafideError,
    DeadlineError,
    InvalidInputError,
    Kind,
    LimitExceededError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    PreconditionError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
)
from services.common.status import PUSHBACK_KEY, details_of, from_rpc_error, rpc_status_of, unary_errors

VIOLATIONS = (Violation("items[1].uri", "string.uri", "must be a URI"), Violation("policy", "string.max_len", "short"))


class Raising(fusion_pb2_grpc.FusionServiceServicer):
    def __init__(self, error: Exception) -> None:
        self.error = error

    @unary_errors
    async def Fuse(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        raise self.error


@asynccontextmanager
async def raising(error: Exception) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    fusion_pb2_grpc.add_FusionServiceServicer_to_server(Raising(error), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield fusion_pb2_grpc.FusionServiceStub(channel)
    await server.stop(0)


async def refusal(error: Exception) -> grpc.aio.AioRpcError:
    async with raising(error) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=5)
    return refused.value


ERRORS = [
    InvalidInputError,
    LimitExceededError,
    PreconditionError,
    UnavailableError,
    ResourceExhaustedError,
    UnauthenticatedError,
    PermissionDeniedError,
    NotFoundError,
    AbortedError,
    OutOfRangeError,
    DeadlineError,
    BonafideError,
]


@pytest.mark.parametrize("kind", ERRORS)
async def test_each_error_has_its_code_and_its_reason(kind: type[BonafideError]) -> None:
    refused = await refusal(kind("a sentence"))
    assert refused.code().name == kind.kind.value
    assert refused.details() == "a sentence"
    assert details_of(refused).reason == kind.reason


def test_every_kind_is_one_of_an_error() -> None:
    assert {error.kind for error in ERRORS} == set(Kind)


async def test_advice_when_to_try_again_arrives_in_both_places() -> None:
    refused = await refusal(ResourceExhaustedError("full", retry_after_seconds=1.25))
    assert details_of(refused).retry_after_seconds == 1.25
    assert dict(refused.trailing_metadata())[PUSHBACK_KEY] == "1250"
    again = from_rpc_error(refused, "the visual service")
    assert isinstance(again, ResourceExhaustedError)
    assert again.retry_after_seconds == 1.25


async def test_without_advice_there_is_no_pushback() -> None:
    refused = await refusal(UnavailableError("away"))
    assert details_of(refused).retry_after_seconds is None
    assert PUSHBACK_KEY not in dict(refused.trailing_metadata())


async def test_grpcs_own_retries_wait_as_long_as_the_pushback_says() -> None:
    config = (
        '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s",'
        ' "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]}'
    )
    calls: list[float] = []

    class Busy(fusion_pb2_grpc.FusionServiceServicer):
        @unary_errors
        async def Fuse(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
            calls.append(time.monotonic())
            raise ResourceExhaustedError("full", retry_after_seconds=0.2)

    server = grpc.aio.server()
    fusion_pb2_grpc.add_FusionServiceServicer_to_server(Busy(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.service_config", config)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub: Any = fusion_pb2_grpc.FusionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=10)
    await server.stop(0)
    assert len(calls) == 3
    assert calls[1] - calls[0] >= 0.15
    assert calls[2] - calls[1] >= 0.15


async def test_violations_name_their_fields() -> None:
    refused = await refusal(InvalidInputError("two fields are wrong", violations=VIOLATIONS))
    assert details_of(refused).violations == VIOLATIONS


async def test_a_peers_text_and_violations_stay_between_services() -> None:
    refused = await refusal(InvalidInputError("secret", violations=VIOLATIONS, reason="BAD_FRAME"))
    again = from_rpc_error(refused, "the visual service")
    assert type(again) is BonafideError
    assert (again.reason, again.violations) == ("BAD_FRAME", ())
    assert "secret" not in again.message


async def test_a_peer_that_is_not_there_is_unavailable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        stub: Any = fusion_pb2_grpc.FusionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Fuse(fusion_pb2.FuseRequest(), timeout=5)
    again = from_rpc_error(refused.value, "the fusion service")
    assert (type(again), again.reason) == (UnavailableError, "UNAVAILABLE")


def test_a_status_of_its_own_for_an_item_of_a_batch() -> None:
    status = rpc_status_of(NotFoundError("no such upload"))
    assert (status.code, status.message, len(status.details)) == (5, "no such upload", 1)
