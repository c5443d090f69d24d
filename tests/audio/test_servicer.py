from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import pytest

from bonafide.v1 import audio_pb2, audio_pb2_grpc, evidence_pb2, media_pb2
from services.audio.pipeline import AudioPipeline, WindowPlan
from services.audio.servicer import AudioServicer
from services.common.converters import audio_to_proto
from services.common.errors import DeadlineError
from services.common.inference import EmbeddedEngine
from services.common.media import AudioTrack
from services.common.models import ModelRepository
from services.common.status import error_reason

Sound = npt.NDArray[np.float32]


@pytest.fixture
async def stub(pipeline: AudioPipeline) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    audio_pb2_grpc.add_AudioServiceServicer_to_server(AudioServicer(pipeline, 30.0), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield audio_pb2_grpc.AudioServiceStub(channel)
    await server.stop(0)


async def test_sound_in_report_out(stub: Any, speech: Callable[[float], Sound]) -> None:
    request = audio_pb2.AnalyzeSpeechRequest(audio=audio_to_proto(AudioTrack(0, speech(4.0))))
    answer = await stub.AnalyzeSpeech(request, timeout=60)
    (report,) = answer.reports
    assert report.branch == evidence_pb2.BRANCH_AUDIO
    assert report.outcome == evidence_pb2.OUTCOME_SCORED
    assert 0 < report.features["audio_prob_fake"] < 1
    assert answer.voice.width == 40
    assert len(answer.voice.values) % 40 == 0
    assert answer.models[0].sha256


async def test_silence_has_no_voice(stub: Any) -> None:
    silence = audio_to_proto(AudioTrack(0, np.zeros(32000, np.float32)))
    answer = await stub.AnalyzeSpeech(audio_pb2.AnalyzeSpeechRequest(audio=silence), timeout=60)
    assert answer.reports[0].reason == evidence_pb2.REASON_CODE_NO_SPEECH
    assert not answer.reports[0].HasField("score")
    assert not answer.HasField("voice")


@pytest.mark.parametrize(
    "audio",
    [
        media_pb2.AudioTrack(sample_rate=8000, samples=b"\0" * 8),
        media_pb2.AudioTrack(sample_rate=16000, samples=b"\0" * 7),
        media_pb2.AudioTrack(sample_rate=16000, samples=np.full(800, np.nan, "<f4").tobytes()),
    ],
)
async def test_sound_that_cannot_be_read_is_refused(stub: Any, audio: media_pb2.AudioTrack) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.AnalyzeSpeech(audio_pb2.AnalyzeSpeechRequest(audio=audio), timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_reason(caught.value) == "BAD_AUDIO"


async def test_a_branch_that_does_not_exist_is_refused(stub: Any) -> None:
    request = audio_pb2.AnalyzeSpeechRequest(audio=audio_to_proto(AudioTrack(0, np.zeros(800, np.float32))))
    request.branches.append(77)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.AnalyzeSpeech(request, timeout=60)
    assert error_reason(caught.value) == "UNKNOWN_BRANCH"


async def test_a_model_that_is_late_still_leaves_time_for_what_is_known(
    repository: ModelRepository, speech: Callable[[float], Sound]
) -> None:
    class Late(EmbeddedEngine):
        async def infer(self, model: str, inputs: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
            await asyncio.sleep(timeout)
            raise DeadlineError(f"{model} took {len(inputs)} inputs and did not answer")

    server = grpc.aio.server()
    late = AudioPipeline(Late(repository), repository, WindowPlan())
    audio_pb2_grpc.add_AudioServiceServicer_to_server(AudioServicer(late, 30.0), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = audio_pb2_grpc.AudioServiceStub(channel)
        request = audio_pb2.AnalyzeSpeechRequest(audio=audio_to_proto(AudioTrack(0, speech(2.0))))
        answer = await stub.AnalyzeSpeech(request, timeout=3.0)
    await server.stop(0)
    assert answer.reports[0].outcome == evidence_pb2.OUTCOME_TIMED_OUT
    assert answer.HasField("voice")
