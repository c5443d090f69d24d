"""A line for every analysis, and nothing in any line or span that a caller would not want to read there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from bonafide.v1 import analysis_pb2_grpc
from deploy.observe.receiver import OtlpReceiver
from services.common.evidence import Verdict
from services.gateway.api_keys import new_key
from services.gateway.quotas import Quota
from tests.common.captured_logs import captured_log
from tests.common.test_models import make_model
from tests.gateway.test_service import CLIP, Stack, upload

FILE_NAME = 'holiday.mp4\n{"level": "ERROR", "message": "forged"}'
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


async def test_every_analysis_is_a_line_and_nobodys_secrets_are_in_any(tmp_path: Path, receiver: OtlpReceiver) -> None:
    make_model(tmp_path)
    key, kept = new_key("acme", Quota())
    keys = tmp_path / "keys"
    keys.write_text(kept.line(), encoding="utf-8")
    stack = Stack(tmp_path, api_keys=keys, otlp_endpoint=receiver.endpoint, trace_sample_ratio=1.0)

    async def ask(data: bytes, *credentials: tuple[str, str], request_id: str) -> None:
        messages = upload(data, request_id=request_id, file_name=FILE_NAME)
        async for _ in stack.stub.Analyze(messages, timeout=30, metadata=credentials):
            pass

    with captured_log() as log:
        async with stack:
            await ask(CLIP, ("x-api-key", key), request_id="first")
            await ask(CLIP, ("x-api-key", key), request_id="again")
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(b"no media " * 99, ("x-api-key", key), request_id="bad")
            await stack.refused(
                lambda channel: list(
                    analysis_pb2_grpc.AnalysisServiceStub(channel).Analyze(
                        upload(file_name=FILE_NAME), timeout=30, metadata=(("authorization", f"Bearer {JWT}"),)
                    )
                )
            )
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    first, again, bad = (line for line in lines if line["message"] == "analysis")
    assert (
        first.items()
        >= {
            "request_id": "first",
            "code": "OK",
            "caller": "key:acme",
            "priority": "interactive",
            "cached": False,
        }.items()
    )
    assert first["verdict"] in set(Verdict)
    assert len(first["content_sha256"]) == 64
    assert first["milliseconds"] > 0
    assert (again["request_id"], again["cached"], again["content_sha256"]) == ("again", True, first["content_sha256"])
    assert bad.items() >= {"request_id": "bad", "code": "INVALID_ARGUMENT", "reason": "UNSUPPORTED_MEDIA"}.items()
    assert "verdict" not in bad

    (span,) = [each for each in receiver.trace(first["trace_id"]) if each.span_id == first["span_id"]]
    assert span.attributes["bonafide.content_sha256"] == first["content_sha256"]
    assert span.attributes["bonafide.verdict"] == first["verdict"]
    stages = [name for name in span.events if name.startswith("stage ")]
    assert stages == [f"stage {name}" for name in ("receiving", "queued", "decoding", "analyzing", "fusing", "done")]
    assert sum(name.startswith("branch ") for name in span.events) == 5

    written = log.getvalue() + "".join(str(each.raw) for each in receiver.spans)
    assert not [secret for secret in ("holiday", "forged", key, JWT, key[-12:], "no media") if secret in written]


async def test_an_analysis_that_is_given_up_is_a_line_too(tmp_path: Path) -> None:
    make_model(tmp_path)
    stack = Stack(tmp_path)
    with captured_log() as log:
        async with stack:
            call = stack.stub.Analyze(upload(request_id="left"), timeout=30)
            async for _ in call:
                break
            call.cancel()
    (line,) = (each for each in map(json.loads, log.getvalue().splitlines()) if each["message"] == "analysis")
    assert (line["request_id"], line["code"]) == ("left", "CANCELLED")
