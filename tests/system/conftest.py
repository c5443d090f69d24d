"""The real stack, started once: four services and Triton (where it runs) as processes on loopback."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bonafide.analysis import Analysis
from bonafide.client import Client
from deploy.local.stack import Stack, StackOptions
from deploy.observe.receiver import OtlpReceiver, traced
from tests.system.watching import Baseline


@pytest.fixture(scope="session")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as listening:
        yield listening


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="session")
def stack(run_directory: Path, receiver: OtlpReceiver) -> Iterator[Stack]:
    """Every trace of it goes to the receiver."""
    seen = traced(StackOptions(run_directory=run_directory), receiver)
    environment = {**seen.environment, "BONAFIDE_GATEWAY_MAX_FILE_BYTES": str(64 << 20)}
    with Stack(replace(seen, environment=environment)) as running:
        yield running


@pytest.fixture(autouse=True)
def still_whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that used the stack, all of its processes are still alive."""
    yield
    if "stack" in request.fixturenames:
        stack: Stack = request.getfixturevalue("stack")
        assert stack.ended() is None


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.gateway) as connection:
        connection.models()  # a baseline that is taken now includes the connection
        yield connection


@pytest.fixture(scope="session")
def data_directory() -> Path:
    path = Path(os.environ.get("BONAFIDE_DATA", "../shared/data"))
    if not (path / "clips" / "clips.tsv").is_file():
        pytest.skip("no shared data: set BONAFIDE_DATA")
    return path


@pytest.fixture
def baseline(stack: Stack) -> Baseline:
    return Baseline(stack.pids)


def analyze(client: Client, data: bytes, name: str = "clip") -> Analysis:
    return client.analyze(io.BytesIO(data), name=name, timeout=60)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
