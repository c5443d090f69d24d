"""Both clients against a gateway that does as it is told, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from bonafide import Analysis, AsyncClient, Client, Credentials, Progress, RetryPolicy, errors
from bonafide.errors import Violation
from bonafide.v1 import analysis_pb2
from tests.bonafide.scripted import ScriptedGateway, info, retry_info, serving, status

QUICK = RetryPolicy(attempts=4, first_pause_seconds=0.01, longest_pause_seconds=0.02)
PATIENT = RetryPolicy(attempts=40, first_pause_seconds=0.1, longest_pause_seconds=0.2)
CLIP = bytes(range(256)) * 4000  # four chunks
DOWN = status(grpc.StatusCode.UNAVAILABLE, "not now", info("BRANCHES_UNAVAILABLE"))


async def by_thread(address: Any, clip: Any, *, client: dict[str, Any] | None = None, **arguments: Any) -> Analysis:
    def run() -> Analysis:
        with Client(address, **{"retries": QUICK, **(client or {})}) as connection:
            return connection.analyze(clip, **{"timeout": 20, **arguments})

    return await asyncio.to_thread(run)


async def by_loop(address: Any, clip: Any, *, client: dict[str, Any] | None = None, **arguments: Any) -> Analysis:
    async with AsyncClient(address, **{"retries": QUICK, **(client or {})}) as connection:
        return await connection.analyze(clip, **{"timeout": 20, **arguments})


both = pytest.mark.parametrize("analyze", [by_thread, by_loop], ids=["sync", "async"])


@both
async def test_a_clip_goes_in_whole_and_its_answer_comes_out(analyze: Any, tmp_path: Path) -> None:
    (tmp_path / "a clip.mp4").write_bytes(CLIP)
    events: list[Any] = []
    sent: list[tuple[int, int]] = []
    gateway = ScriptedGateway()
    async with serving(gateway) as address:
        found = await analyze(
            address, tmp_path / "a clip.mp4", on_event=events.append, on_sent=lambda *each: sent.append(each)
        )
    (call,) = gateway.calls
    assert call.options is not None
    assert call.data == CLIP
    assert (call.options.file_name, call.options.size_bytes) == ("a clip.mp4", len(CLIP))
    assert re.fullmatch("[0-9a-f]{32}", call.options.request_id)
    assert found.request_id == call.options.request_id
    assert 0 < call.seconds_left <= 20
    assert [type(event) for event in events] == [Progress]
    assert sent[-1] == (len(CLIP), len(CLIP))
    assert [count for count, _ in sent] == sorted(count for count, _ in sent)


@both
@pytest.mark.parametrize("opened", [bytes, io.BytesIO], ids=["bytes", "file"])
async def test_a_failed_try_is_repeated_whole_under_the_same_id(analyze: Any, opened: Callable[[bytes], Any]) -> None:
    gateway = ScriptedGateway([DOWN, DOWN])
    async with serving(gateway) as address:
        await analyze(address, opened(CLIP), name="n")
    assert [call.data for call in gateway.calls] == [CLIP] * 3
    assert len({call.options.request_id for call in gateway.calls if call.options is not None}) == 1


@both
async def test_a_file_is_sent_from_where_it_stands(analyze: Any) -> None:
    file = io.BytesIO(b"skipped" + CLIP)
    file.seek(7)
    gateway = ScriptedGateway([DOWN])
    async with serving(gateway) as address:
        await analyze(address, file)
    assert [call.data for call in gateway.calls] == [CLIP] * 2


class Pipe(io.RawIOBase):
    """Bytes that can be read once."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)


@both
async def test_what_can_be_read_only_once_is_sent_only_once(analyze: Any) -> None:
    gateway = ScriptedGateway([DOWN])
    async with serving(gateway) as address:
        with pytest.raises(errors.ServerUnavailableError) as failed:
            await analyze(address, Pipe(CLIP))
    assert failed.value.reason == "BRANCHES_UNAVAILABLE"
    assert len(gateway.calls) == 1


@both
async def test_tries_end(analyze: Any) -> None:
    gateway = ScriptedGateway([DOWN] * 9)
    async with serving(gateway) as address:
        with pytest.raises(errors.ServerUnavailableError):
            await analyze(address, CLIP, request_id="mine")
    assert len(gateway.calls) == QUICK.attempts


@both
async def test_a_refusal_is_typed_and_final(analyze: Any) -> None:
    violations = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="options.policy", description="no such")]
    )
    refusal = status(grpc.StatusCode.INVALID_ARGUMENT, "bad options", info("UNKNOWN_POLICY"), violations)
    gateway = ScriptedGateway([refusal])
    async with serving(gateway) as address:
        with pytest.raises(errors.BadInputError) as failed:
            await analyze(address, CLIP, request_id="mine")
    assert failed.value.reason == "UNKNOWN_POLICY"
    assert failed.value.code == "INVALID_ARGUMENT"
    assert failed.value.violations == (Violation("options.policy", "no such"),)
    assert failed.value.request_id == "mine"
    assert len(gateway.calls) == 1


KINDS = {
    "NOT_FOUND": errors.NotFoundError,
    "OUT_OF_RANGE": errors.BadInputError,
    "UNAUTHENTICATED": errors.AccessDeniedError,
    "PERMISSION_DENIED": errors.AccessDeniedError,
    "RESOURCE_EXHAUSTED": errors.OverloadedError,
    "DEADLINE_EXCEEDED": errors.DeadlineExceededError,
    "INTERNAL": errors.AnalysisFailedError,
}


@both
async def test_a_refusal_before_the_upload_is_read_is_heard(analyze: Any) -> None:
    refusal = status(grpc.StatusCode.PERMISSION_DENIED, "no", info("NOT_ALLOWED"))
    gateway = ScriptedGateway([refusal] * 5, read_before_refusal=False)
    async with serving(gateway) as address:
        for _ in range(5):
            with pytest.raises(errors.AccessDeniedError) as failed:
                await analyze(address, bytes(4 << 20))
            assert failed.value.reason == "NOT_ALLOWED"


@both
async def test_every_code_has_its_kind_and_is_not_repeated(analyze: Any) -> None:
    gateway = ScriptedGateway([status(grpc.StatusCode[code], code.lower(), info("WHY")) for code in KINDS])
    async with serving(gateway) as address:
        for code, kind in KINDS.items():
            with pytest.raises(errors.ClientError) as failed:
                await analyze(address, CLIP)
            assert type(failed.value) is kind
            assert (failed.value.code, failed.value.reason, failed.value.message) == (code, "WHY", code.lower())
    assert len(gateway.calls) == len(KINDS)


@both
async def test_a_server_at_its_limit_is_asked_again_when_it_says(analyze: Any) -> None:
    busy = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", info("QUEUE_FULL"), retry_info(0.2))
    gateway = ScriptedGateway([busy], read_before_refusal=False)
    async with serving(gateway) as address:
        await analyze(address, CLIP)
    first, second = (call.arrived for call in gateway.calls)
    assert second - first >= 0.2


@both
async def test_advice_beyond_the_deadline_is_handed_to_the_caller(analyze: Any) -> None:
    gateway = ScriptedGateway([status(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", info("QUOTA"), retry_info(60))])
    async with serving(gateway) as address:
        with pytest.raises(errors.OverloadedError) as failed:
            await analyze(address, CLIP, timeout=5)
    assert failed.value.retry_after_seconds == 60
    assert len(gateway.calls) == 1


@both
async def test_the_pushback_trailer_is_obeyed(analyze: Any) -> None:
    def told(pushback: str) -> Callable[[Any], None]:
        def refuse(context: Any) -> None:
            context.set_trailing_metadata([("grpc-retry-pushback-ms", pushback)])
            context.set_code(grpc.StatusCode.UNAVAILABLE)
            context.set_details("told")

        return refuse

    gateway = ScriptedGateway([told("30"), told("-1")])
    async with serving(gateway) as address:
        with pytest.raises(errors.ClientError) as failed:
            await analyze(address, CLIP)
    assert failed.value.code == "UNAVAILABLE"
    assert len(gateway.calls) == 2  # again after 30 ms, then never


@both
async def test_the_deadline_ends_a_call(analyze: Any) -> None:
    gateway = ScriptedGateway(pause=30)
    async with serving(gateway) as address:
        with pytest.raises(errors.DeadlineExceededError):
            await analyze(address, CLIP, timeout=0.5)
        await ended(gateway)


async def ended(gateway: ScriptedGateway) -> None:
    """Wait until the server has noticed that nobody wants its answer."""
    async with asyncio.timeout(10):
        await gateway.cancelled.wait()
        gateway.cancelled.clear()


async def test_leaving_the_events_early_cancels_the_call() -> None:
    gateway = ScriptedGateway(pause=30)
    async with serving(gateway) as address:

        def first(clip: bytes) -> Any:
            with Client(address) as client:
                return next(iter(client.events(clip, timeout=20)))

        assert isinstance(await asyncio.to_thread(first, CLIP), Progress)
        await ended(gateway)
        async with AsyncClient(address) as client:
            async with aclosing(client.events(CLIP, timeout=20)) as events:
                assert isinstance(await anext(events), Progress)
            await ended(gateway)


async def test_cancelling_the_task_cancels_the_call() -> None:
    gateway = ScriptedGateway(pause=30)
    async with serving(gateway) as address, AsyncClient(address) as client:
        task = asyncio.create_task(client.analyze(CLIP, timeout=20))
        async with asyncio.timeout(10):
            await gateway.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended(gateway)


@both
async def test_a_clip_that_cannot_be_read_is_the_callers_fault(analyze: Any, tmp_path: Path) -> None:
    class Broken(Pipe):
        def read(self, size: int = -1) -> bytes:
            found = super().read(size)
            if not found:
                raise OSError(5, "Input/output error")
            return found

    gateway = ScriptedGateway()
    async with serving(gateway) as address:
        with pytest.raises(errors.BadInputError, match="No such file") as missing:
            await analyze(address, tmp_path / "nowhere.mp4")
        with pytest.raises(errors.BadInputError, match="Input/output") as broken:
            await analyze(address, Broken(CLIP))
    assert missing.value.reason == broken.value.reason == "UNREADABLE_FILE"


@both
async def test_nobody_there(analyze: Any, unused_tcp_port: int) -> None:
    with pytest.raises(errors.ServerUnreachableError) as failed:
        await analyze(f"127.0.0.1:{unused_tcp_port}", CLIP)
    assert failed.value.code == "UNAVAILABLE"


@both
async def test_an_answer_from_the_future_is_a_typed_error(analyze: Any) -> None:
    class Newer(ScriptedGateway):
        async def Analyze(self, requests: Any, context: Any) -> Any:  # noqa: N802, ARG002
            analysis = analysis_pb2.Analysis()
            analysis.verdict = 77  # type: ignore[assignment]
            yield analysis_pb2.AnalyzeResponse(analysis=analysis)

    async with serving(Newer()) as address:
        with pytest.raises(errors.AnalysisFailedError) as failed:
            await analyze(address, CLIP)
    assert failed.value.reason == "UNREADABLE_ANSWER"


@both
async def test_keys_and_tokens_go_with_every_try(analyze: Any) -> None:
    tokens = iter(["old", "new"])
    gateway = ScriptedGateway([DOWN])
    async with serving(gateway) as address:
        await analyze(address, CLIP, client={"credentials": Credentials(token=lambda: next(tokens))})
        await analyze(address, CLIP, client={"credentials": Credentials(api_key="the-key")})
    shown = [(call.metadata.get("authorization"), call.metadata.get("x-api-key")) for call in gateway.calls]
    assert shown == [("Bearer old", None), ("Bearer new", None), (None, "the-key")]
    with pytest.raises(ValueError, match="not both"):
        Credentials(api_key="k", token="t")


@both
async def test_calls_go_in_turn_to_the_healthy_and_past_the_dead(analyze: Any) -> None:
    first, second, sick = ScriptedGateway(), ScriptedGateway(), ScriptedGateway()
    async with serving(first) as one, serving(sick, healthy=False) as bad:
        async with serving(second) as two:
            await several(analyze, [one, two, bad], first, second)
        await analyze([one, two, bad], CLIP)
    assert sick.calls == []


async def several(analyze: Any, addresses: list[str], first: ScriptedGateway, second: ScriptedGateway) -> None:
    """Analyse with one client until both have been asked."""
    async with asyncio.timeout(20):
        if analyze is by_loop:
            async with AsyncClient(addresses) as client:
                while not (first.calls and second.calls):
                    await client.analyze(CLIP)
        else:
            with Client(addresses) as connection:
                while not (first.calls and second.calls):
                    await asyncio.to_thread(connection.analyze, CLIP)


@both
async def test_a_server_that_goes_away_in_the_middle_loses_nothing(analyze: Any) -> None:
    going, staying = ScriptedGateway(pause=30), ScriptedGateway()
    async with serving(staying) as other:
        async with serving(going) as address:
            task = asyncio.create_task(analyze([address], CLIP, request_id="mine", client={"retries": PATIENT}))
            async with asyncio.timeout(10):
                await going.asked.wait()
        async with serving(staying, address=address):
            assert (await task).request_id == "mine"
        with pytest.raises(errors.ServerUnreachableError):
            await analyze([address], CLIP, client={"retries": RetryPolicy(attempts=1)})
        await analyze([address, other], CLIP)
    assert next(call.options.request_id for call in staying.calls if call.options) == "mine"


@both
async def test_a_call_that_the_server_cancels_is_tried_again(analyze: Any) -> None:
    gateway = ScriptedGateway([status(grpc.StatusCode.CANCELLED, "stopping")])
    async with serving(gateway) as address:
        assert (await analyze(address, CLIP)).request_id
    assert len(gateway.calls) == 2


async def test_models_are_listed_and_tried_again() -> None:
    gateway = ScriptedGateway([DOWN, DOWN])
    async with serving(gateway) as address:
        async with AsyncClient(address, retries=QUICK) as client:
            assert [model.name for model in await client.models()] == ["m"]
        with Client(address, retries=QUICK) as connection:
            assert [model.name for model in await asyncio.to_thread(connection.models)] == ["m"]
    assert len(gateway.calls) == 4
