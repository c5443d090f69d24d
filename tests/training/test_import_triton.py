"""An imported model answers from a Triton that was running before the import."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.local.triton import (
    TritonPlan,
    TritonUnavailableError,
    assemble_backends,
    find_installation,
    remove_shared_memory,
    shared_memory_prefix,
)
from services.common.inference import EmbeddedEngine, TritonEngine
from services.common.models import ModelRepository
from tests.training.published import filled, tiny_ladeda
from training.checkpoints.__main__ import main

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
START_SECONDS = 240


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


@pytest.fixture
def triton(repository: Path, tmp_path: Path) -> Iterator[str]:
    """Address of a running server that has loaded nothing."""
    try:
        installation = find_installation(ROOT / ".venv-triton")
    except TritonUnavailableError as error:
        pytest.skip(str(error))
    plan = TritonPlan(
        installation=installation,
        repository=repository,
        models=(),
        backends=assemble_backends(installation, tmp_path / "backends"),
        grpc_port=free_port(),
        metrics_port=free_port(),
        shared_memory_prefix=shared_memory_prefix(os.getpid()),
    )
    log = tmp_path / "triton.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            plan.command(), env={**os.environ, **plan.environment()}, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        ends = time.monotonic() + START_SECONDS
        while not listens(plan.grpc_port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < ends, "Triton did not start"
            time.sleep(0.2)
        yield f"127.0.0.1:{plan.grpc_port}"
    finally:
        server.terminate()
        server.wait(30)
        remove_shared_memory(os.getpid())


def test_an_imported_model_is_served_without_a_restart(
    repository: Path, triton: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(filled(tiny_ladeda()), tmp_path / "tiny.pth")
    arguments = ["tiny-ladeda", str(tmp_path / "tiny.pth"), "--licence", "MIT", "--name", "mine", "--triton", triton]
    assert main([*arguments, "--repository", str(repository)]) == 0
    assert f"mine: loaded by Triton at {triton}" in capsys.readouterr().out
    crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)

    async def served() -> np.ndarray:
        engine = TritonEngine(triton)
        try:
            return (await engine.infer("mine", {"crops": crops}, timeout=60))["logit"]
        finally:
            await engine.close()

    expected = EmbeddedEngine(ModelRepository(repository)).run("mine", {"crops": crops})["logit"]
    assert np.allclose(asyncio.run(served()), expected, atol=1e-5)
