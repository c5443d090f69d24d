"""The gateway as a caller meets it: real gRPC on loopback, with peers whose answers are known."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from bonafide.v1 import (
    analysis_pb2,
    analysis_pb2_grpc,
    audio_pb2_grpc,
    evidence_pb2,
    fusion_pb2_grpc,
    visual_pb2_grpc,
)
from services.audio.converters import branches_from_proto
from services.audio.converters import evidence_to_proto as audio_to_proto
from services.common.channels import open_channel
from services.common.converters import audio_from_proto
from services.common.errors import InvalidInputError, UnavailableError
from services.common.server import Service, ServiceProcess
from services.common.settings import ServiceSettings
from services.common.status import error_reason, remaining_seconds, unary_errors
from services.common.telemetry import Telemetry
from services.fusion.converters import input_from_proto, result_to_proto
from services.gateway.__main__ import build
from services.gateway.analysis import Case, Evidence
from services.gateway.settings import GatewaySettings
from services.visual.converters import evidence_to_proto, request_from_proto
from tests import media_factory as media
from tests.common.test_models import make_model
from tests.gateway.stand_ins import Audio, Fusion, Visual
from tests.media_factory import Clip

CLIP = Clip(frames=25).bytes()
SERVING = health_pb2.HealthCheckResponse.SERVING
LIMIT = 2 << 20


class VisualServicer(visual_pb2_grpc.VisualServiceServicer):
    def __init__(self, answer: Visual) -> None:
        self.answer = answer

    @unary_errors
    async def AnalyzeFaces(self, request: Any, context: Any) -> Any:  # noqa: N802
        clip = request_from_proto(request)
        timeout = remaining_seconds(context, default=1e9)
        return evidence_to_proto(
            await self.answer.analyze(clip.survey, clip.dense, clip.branches, timeout=timeout, content=clip.content)
        )


class AudioServicer(audio_pb2_grpc.AudioServiceServicer):
    def __init__(self, answer: Audio) -> None:
        self.answer = answer

    @unary_errors
    async def AnalyzeSpeech(self, request: Any, context: Any) -> Any:  # noqa: N802
        timeout = remaining_seconds(context, default=1e9)
        audio = audio_from_proto(request.audio)
        return audio_to_proto(
            await self.answer.analyze(
                audio, branches_from_proto(request), timeout=timeout, content=request.content_sha256
            )
        )


class FusionServicer(fusion_pb2_grpc.FusionServiceServicer):
    def __init__(self, answer: Fusion) -> None:
        self.answer = answer

    @unary_errors
    async def Fuse(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        clip = input_from_proto(request)
        if clip.policy:
            raise InvalidInputError("unknown policy", reason="UNKNOWN_POLICY")
        return result_to_proto(await self.answer.fuse(Case(clip.reports, Evidence()), timeout=1.0))


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def ready() -> None:
    return


@asynccontextmanager
async def serving(service: Service, settings: ServiceSettings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(ServiceProcess(service, settings).serve(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


class Stack:
    """The gateway with its peers, of which any may be left out, and with settings of its own."""

    kind: type[GatewaySettings] = GatewaySettings

    def __init__(self, repository: Path, **settings: Any) -> None:
        self._settings = settings
        self.visual, self.audio, self.fusion = Visual(), Audio(), Fusion()
        self.absent: set[str] = set()
        self._repository = repository
        self._exits = AsyncExitStack()
        self.address = ""
        self.channel: grpc.aio.Channel
        self.stub: Any

    async def __aenter__(self) -> Self:
        registrations: dict[str, Any] = {
            "visual": (visual_pb2_grpc.add_VisualServiceServicer_to_server, VisualServicer(self.visual)),
            "audio": (audio_pb2_grpc.add_AudioServiceServicer_to_server, AudioServicer(self.audio)),
            "fusion": (fusion_pb2_grpc.add_FusionServiceServicer_to_server, FusionServicer(self.fusion)),
        }
        addresses = {name: free_address() for name in registrations}
        for name, (add, servicer) in registrations.items():
            if name not in self.absent:
                service = Service(
                    name, [f"bonafide.v1.{name.capitalize()}Service"], partial(add, servicer), ready, Telemetry(name)
                )
                settings = ServiceSettings(listen=addresses[name], drain_seconds=0.1, drain_notice_seconds=0)
                await self._exits.enter_async_context(serving(service, settings))
        settings = self.kind(
            listen=free_address(),
            drain_seconds=0.1,
            drain_notice_seconds=0,
            readiness_interval_seconds=0.05,
            max_file_bytes=LIMIT,
            model_repository=self._repository,
            **self._settings,
            **{f"{name}_address": address for name, address in addresses.items()},
        )
        await self._exits.enter_async_context(serving(build(settings), settings))
        self.address = settings.listen
        self.channel = open_channel(settings.listen, max_message_bytes=1 << 26)
        await asyncio.wait_for(self.channel.channel_ready(), 10)
        self.stub = analysis_pb2_grpc.AnalysisServiceStub(self.channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self._exits.aclose()

    async def analyze(self, messages: Any, timeout: float | None = 30.0) -> list[analysis_pb2.AnalyzeResponse]:
        return [event async for event in self.stub.Analyze(messages, timeout=timeout)]

    async def refusal(self, messages: Any, timeout: float | None = 30.0) -> tuple[grpc.StatusCode, str]:
        """How an upload is refused. Asked by the blocking client: the other fails in itself ("Internal error from
        Core") when it is about to send as the refusal arrives."""

        def call(channel: grpc.Channel) -> None:
            list(analysis_pb2_grpc.AnalysisServiceStub(channel).Analyze(messages, timeout=timeout))

        return await self.refused(call)

    async def refused(self, call: Callable[[grpc.Channel], object]) -> tuple[grpc.StatusCode, str]:
        """How a call of the blocking client is refused."""

        def ask() -> tuple[grpc.StatusCode, str]:
            with grpc.insecure_channel(self.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
                with pytest.raises(grpc.RpcError) as refused:
                    call(channel)
                return refused.value.code(), error_reason(refused.value)

        return await asyncio.to_thread(ask)

    async def is_serving(self) -> bool:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        for _ in range(60):
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            if answer.status == SERVING:
                return True
            await asyncio.sleep(0.05)
        return False


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    make_model(tmp_path)
    return Stack(tmp_path)


def upload(data: bytes = CLIP, **options: Any) -> Iterator[analysis_pb2.AnalyzeRequest]:
    yield analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(**options))
    for start in range(0, len(data), 100_000):
        yield analysis_pb2.AnalyzeRequest(chunk=data[start : start + 100_000])


async def test_a_clip_in_and_a_verdict_out(stack: Stack) -> None:
    async with stack:
        assert await stack.is_serving()
        events = await stack.analyze(upload(request_id="mine", file_name="../../etc/passwd"))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[-1] == "analysis"
    assert kinds.count("analysis") == 1
    assert kinds.count("branch") == 5
    analysis = events[-1].analysis
    assert analysis.request_id == "mine"
    assert analysis.probability == pytest.approx(0.1)
    assert [report.branch for report in analysis.branches] == list(range(1, 6))
    assert (analysis.media.width, analysis.media.container) == (320, "mov,mp4,m4a,3gp,3g2,mj2")
    assert [timing.stage for timing in analysis.timings] == [1, 6, 2, 3, 4]
    assert 0 < stack.visual.asked[0][3] < 30


async def test_a_caller_without_an_id_or_a_deadline_gets_both(stack: Stack) -> None:
    async with stack:
        first, second = await stack.analyze(upload(), None), await stack.analyze(upload(), None)
    assert first[-1].analysis.request_id
    assert first[-1].analysis.request_id != second[-1].analysis.request_id
    assert 0 < stack.visual.asked[0][3] <= 60


async def test_options_are_checked(stack: Stack) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    async with stack:
        assert await stack.refusal(iter(())) == (invalid, "OPTIONS_MISSING")
        assert await stack.refusal(iter(list(upload())[1:])) == (invalid, "OPTIONS_MISSING")
        assert await stack.refusal(upload(request_id="x" * 129)) == (invalid, "INVALID_REQUEST_ID")
        assert await stack.refusal(upload(request_id="a\nb")) == (invalid, "INVALID_REQUEST_ID")
        assert await stack.refusal(upload(file_name="x" * 256)) == (invalid, "INVALID_FILE_NAME")
        assert await stack.refusal(upload(branches=[99])) == (invalid, "UNKNOWN_BRANCH")
        assert await stack.refusal(upload(branches=[0])) == (invalid, "UNKNOWN_BRANCH")
        assert await stack.refusal(upload(policy="nonsense")) == (invalid, "UNKNOWN_POLICY")
        twice = [*upload(), *upload()]
        assert await stack.refusal(iter(twice)) == (invalid, "INVALID_CHUNK")
        empty = [*upload(), analysis_pb2.AnalyzeRequest(chunk=b"")]
        assert await stack.refusal(iter(empty)) == (invalid, "INVALID_CHUNK")
        large = [*upload(b""), analysis_pb2.AnalyzeRequest(chunk=bytes((1 << 20) + 1))]
        assert await stack.refusal(iter(large)) == (invalid, "INVALID_CHUNK")
        assert await stack.refusal(upload(b"")) == (invalid, "EMPTY_INPUT")
        assert await stack.refusal(upload(media.text_file())) == (invalid, "UNSUPPORTED_MEDIA")
    assert stack.visual.asked == [] or len(stack.visual.asked) == 1  # only the unknown policy got that far


async def test_only_the_branches_named_are_run(stack: Stack) -> None:
    async with stack:
        events = await stack.analyze(upload(branches=[evidence_pb2.BRANCH_AUDIO]))
    assert stack.visual.asked == []
    assert {report.branch for report in events[-1].analysis.branches if report.HasField("score")} == {4}


async def test_too_many_bytes_are_refused_while_they_stream(stack: Stack) -> None:
    over = threading.Event()

    def unfinished() -> Iterator[analysis_pb2.AnalyzeRequest]:
        yield from upload(bytes(LIMIT + 1))
        over.wait(60)  # the upload goes on, for all the gateway knows

    async with stack:
        refusal = await stack.refusal(unfinished())
        over.set()
        declared = await stack.refusal(upload(size_bytes=LIMIT + 1))
    assert refusal == declared == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_TOO_LARGE")


@pytest.mark.parametrize("absent", ["visual", "audio"])
async def test_a_side_that_is_down_is_named_and_the_other_decides(stack: Stack, absent: str) -> None:
    stack.absent = {absent}
    async with stack:
        assert await stack.is_serving()
        analysis = (await stack.analyze(upload()))[-1].analysis
    failed = {1, 2, 3} if absent == "visual" else {4}
    for report in analysis.branches[:4]:
        assert (report.outcome == evidence_pb2.OUTCOME_FAILED) is (report.branch in failed)
        expected = evidence_pb2.REASON_CODE_BRANCH_UNAVAILABLE if report.branch in failed else 0
        assert report.reason == expected
    assert analysis.HasField("probability")


async def test_everything_down_is_unavailable_and_not_ready(stack: Stack) -> None:
    stack.absent = {"visual", "audio"}
    async with stack:
        assert not await stack.is_serving()
        assert await stack.refusal(upload()) == (grpc.StatusCode.UNAVAILABLE, "BRANCHES_UNAVAILABLE")


async def test_without_fusion_there_is_no_verdict(stack: Stack) -> None:
    stack.absent = {"fusion"}
    async with stack:
        assert not await stack.is_serving()
        assert (await stack.refusal(upload()))[0] is grpc.StatusCode.UNAVAILABLE


async def test_an_error_of_a_side_keeps_its_inside_private(stack: Stack) -> None:
    stack.visual = Visual(error=UnavailableError("secret place"))
    async with stack:
        analysis = (await stack.analyze(upload()))[-1].analysis
    assert b"secret" not in analysis.SerializeToString()


async def test_a_caller_who_hangs_up_cancels_the_branches(stack: Stack) -> None:
    stack.visual = Visual(seconds=60)
    async with stack:
        call = stack.stub.Analyze(upload(), timeout=30)
        reading = asyncio.create_task(anext(aiter(call)))
        await asyncio.wait_for(stack.visual.begun.wait(), 20)
        call.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        for _ in range(100):
            if stack.visual.cancelled:
                break
            await asyncio.sleep(0.05)
    assert stack.visual.cancelled


async def test_a_slow_branch_is_timed_out_within_the_callers_deadline(stack: Stack) -> None:
    stack.visual = Visual(seconds=60)
    async with stack:
        analysis = (await stack.analyze(upload(), timeout=8.0))[-1].analysis
    assert [report.outcome for report in analysis.branches[:3]] == [evidence_pb2.OUTCOME_TIMED_OUT] * 3
    assert analysis.branches[3].HasField("score")


async def test_an_upload_that_stalls_is_told_so_before_the_caller_gives_up(stack: Stack) -> None:
    async def stalled() -> AsyncIterator[analysis_pb2.AnalyzeRequest]:
        yield next(upload())
        await asyncio.sleep(60)

    async with stack:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await stack.analyze(stalled(), timeout=3.0)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert rpc_status.from_call(late.value) is not None  # the server's own status, not one that gRPC made here


async def test_models_are_listed_from_their_cards(stack: Stack) -> None:
    async with stack:
        answer = await stack.stub.ListModels(analysis_pb2.ListModelsRequest(), timeout=10)
    assert [model.name for model in answer.models] == ["m"]
    assert answer.models[0].headline
