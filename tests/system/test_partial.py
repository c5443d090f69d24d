"""Real services that are down, stopped or at their limit: a partial verdict that says so, or a typed error."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import grpc
import numpy as np
import pytest

from bonafide.v1 import analysis_pb2, analysis_pb2_grpc
from deploy.local.stack import Stack, StackOptions
from services.common.converters import report_from_proto
from services.common.evidence import VISUAL_BRANCHES, Branch, Outcome, ReasonCode
from services.common.settings import EngineChoice
from services.common.status import error_reason
from tests import media_factory as make
from tests.audio.conftest import babble

BRANCH_SECONDS = 8
SIDES = {"visual": frozenset(VISUAL_BRANCHES), "audio": frozenset({Branch.AUDIO})}
METHODS = {"visual": "/bonafide.v1.VisualService/AnalyzeFaces", "audio": "/bonafide.v1.AudioService/AnalyzeSpeech"}
NO_PROXY = [("grpc.enable_http_proxy", 0)]


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose services take one call at a time and whose circuits never open."""
    environment = {
        "BONAFIDE_GATEWAY_BRANCH_SECONDS": str(BRANCH_SECONDS),
        "BONAFIDE_GATEWAY_BREAKER_LEAST_CALLS": "1000",
        "BONAFIDE_GATEWAY_ANSWERS_BYTES": "0",  # or the answer of the healthy stack would be given again
        "BONAFIDE_VISUAL_CALLS_AT_ONCE": "1",
        "BONAFIDE_AUDIO_CALLS_AT_ONCE": "1",
    }
    options = StackOptions(
        run_directory=tmp_path_factory.mktemp("frail"), engine=EngineChoice.EMBEDDED, environment=environment
    )
    with Stack(options, say=lambda _: None) as stack:
        yield stack


@pytest.fixture(scope="module")
def clip() -> bytes:
    """A face and speech, short enough to be judged quickly."""
    portrait = make.portrait()
    height, width = portrait.shape[:2]
    return make.Clip(
        frames=5, width=width, height=height, picture=lambda *_: portrait, sound=np.repeat(babble(2.0), 3)
    ).bytes()


def analyze(stack: Stack, clip: bytes) -> analysis_pb2.Analysis:
    with grpc.insecure_channel(stack.gateway, options=NO_PROXY) as channel:
        messages = [
            analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions()),
            analysis_pb2.AnalyzeRequest(chunk=clip),
        ]
        *_, last = analysis_pb2_grpc.AnalysisServiceStub(channel).Analyze(iter(messages), timeout=60)
        return last.analysis


def refusal(stack: Stack, clip: bytes) -> str:
    with pytest.raises(grpc.RpcError) as refused:
        analyze(stack, clip)
    return error_reason(refused.value)


@contextmanager
def stopped(stack: Stack, name: str) -> Iterator[None]:
    os.kill(stack.pids[name], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stack.pids[name], signal.SIGCONT)


@contextmanager
def at_its_limit(stack: Stack, name: str) -> Iterator[None]:
    """Somebody else holds the only place, with a call that never sends its message."""
    never = threading.Event()

    def silence() -> Iterator[bytes]:
        never.wait()
        yield b""

    with grpc.insecure_channel(stack.addresses[name], options=NO_PROXY) as channel:
        call = channel.stream_unary(METHODS[name]).future(silence())
        try:
            assert any(_is_full(channel, name) for _ in range(100))
            yield
        finally:
            never.set()
            call.cancel()


def _is_full(channel: grpc.Channel, name: str) -> bool:
    """Whether a service refuses an empty message because it is at its limit."""
    time.sleep(0.05)
    try:
        channel.unary_unary(METHODS[name])(b"", timeout=20)
    except grpc.RpcError as error:
        return error_reason(error) == "CALLS_FULL"
    return False


@contextmanager
def killed(stack: Stack, name: str) -> Iterator[None]:
    os.kill(stack.pids[name], signal.SIGKILL)
    yield


LATE = (Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT)
AWAY = (Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE)
FAULTS: dict[str, tuple[Callable[[Stack, str], AbstractContextManager[None]], set[tuple[Outcome, ReasonCode]]]] = {
    "stopped": (stopped, {LATE, AWAY}),  # a ping may find out before the deadline does
    "at its limit": (at_its_limit, {AWAY}),
    "killed": (killed, {AWAY}),
}
"""What happens to a service, and what the ledger says of its branches then; those killed stay dead."""

COMBINATIONS = [
    {"visual": "stopped"},
    {"audio": "at its limit"},
    {"visual": "at its limit", "audio": "stopped"},
    {"audio": "killed"},
    {"visual": "stopped", "audio": "killed"},
    {"visual": "killed", "audio": "killed"},
]


def test_a_stack_that_is_well_scores_both_sides(frail: Stack, clip: bytes) -> None:
    reports = {report.branch: report for report in map(report_from_proto, analyze(frail, clip).branches)}
    assert reports[Branch.FRAME].outcome is Outcome.SCORED
    assert reports[Branch.AUDIO].outcome is Outcome.SCORED


@pytest.mark.parametrize("faults", COMBINATIONS, ids=lambda faults: ", ".join(f"{k} {v}" for k, v in faults.items()))
def test_each_side_that_fails_is_named_and_never_made_up(frail: Stack, clip: bytes, faults: dict[str, str]) -> None:
    with ExitStack() as held:
        for name, fault in faults.items():
            held.enter_context(FAULTS[fault][0](frail, name))
        if len(faults) == len(SIDES):
            assert refusal(frail, clip) == "BRANCHES_UNAVAILABLE"
            return
        answer = analyze(frail, clip)
    ((name, fault),) = faults.items()
    for report in map(report_from_proto, answer.branches):
        if report.branch in SIDES[name]:
            assert (report.outcome, report.reason) in FAULTS[fault][1]
            assert report.score is None
            assert report.budget_milliseconds == pytest.approx(BRANCH_SECONDS * 1000)
    scored = [report.branch for report in map(report_from_proto, answer.branches) if report.outcome is Outcome.SCORED]
    assert scored
    assert not set(scored) & SIDES[name]


def test_without_fusion_there_is_no_verdict(frail: Stack, clip: bytes) -> None:
    with killed(frail, "fusion"):
        assert refusal(frail, clip) in {"UNAVAILABLE", "BRANCHES_UNAVAILABLE"}
