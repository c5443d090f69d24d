"""A caller who hangs up on a long clip: every process falls idle, having done next to nothing more."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from benchmarks.processor_time import processor_seconds
from bonafide.v1 import analysis_pb2, analysis_pb2_grpc
from deploy.local.stack import Stack
from tests import media_factory as make

MINUTES = 5
IDLE_SHARE = 0.2
"""Processors that the stack may use when nothing is asked of it: health, readiness, Triton's own threads."""


@pytest.fixture(scope="module")
def long_clip() -> bytes:
    """Five minutes of a face and a voice; few pictures a second, so that making it is quick."""
    portrait = make.portrait()
    height, width = portrait.shape[:2]
    times = tuple(np.arange(0, MINUTES * 60, 0.25).tolist())
    return make.Clip(times=times, width=width, height=height, picture=lambda *_: portrait).bytes()


def processor_time(stack: Stack) -> float:
    """What all processes of the stack and their children, Triton's models, have used so far, seconds."""
    return sum(processor_seconds(pid) for pid in stack.pids.values())


def settle(stack: Stack) -> float:
    """Wait until the stack is idle; answers the processor time used by then."""
    for _ in range(60):
        before = processor_time(stack)
        time.sleep(0.5)
        if processor_time(stack) - before < 0.5 * IDLE_SHARE:
            return before
    raise AssertionError("the stack never falls idle")


def upload(data: bytes) -> Iterator[analysis_pb2.AnalyzeRequest]:
    yield analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(size_bytes=len(data)))
    for start in range(0, len(data), 1 << 18):
        yield analysis_pb2.AnalyzeRequest(chunk=data[start : start + (1 << 18)])


@pytest.mark.parametrize("stage", [analysis_pb2.STAGE_DECODING, analysis_pb2.STAGE_ANALYZING])
def test_hanging_up_leaves_nothing_running(stack: Stack, long_clip: bytes, stage: int) -> None:
    with grpc.insecure_channel(stack.gateway, options=[("grpc.enable_http_proxy", 0)]) as channel:
        settle(stack)
        call = analysis_pb2_grpc.AnalysisServiceStub(channel).Analyze(upload(long_clip), timeout=60)
        for event in call:
            if event.progress.stage == stage:
                break
        time.sleep(0.3)  # in the midst of it
        call.cancel()
        hung_up = processor_time(stack)
        assert settle(stack) - hung_up < 1.0
