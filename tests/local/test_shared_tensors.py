"""Tensors by shared memory: chosen only where it works, right in every answer, and gone at the end. Real Triton."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from deploy.local import triton
from deploy.local.processes import free_ports
from services.common.inference import Array, EmbeddedEngine, TritonEngine, TritonLimits
from services.common.models import ModelRepository
from services.common.shared_tensors import SHARED_MEMORY, Region, SharedTensors, sweep
from services.common.tensor_passing import TensorPassing
from tests.local.conftest import kill_triton, start_triton
from tests.local.test_triton_care import engine

LARGE = TritonLimits(shared_regions=2, shared_region_bytes=1 << 20, shared_from_bytes=1000)
RNG = np.random.default_rng(3)


def pixels(length: int = 10_000) -> dict[str, Array]:
    return {"pixels": RNG.integers(0, 256, (2, length, 4), dtype=np.uint8)}


def files(directory: Path = SHARED_MEMORY) -> set[str]:
    return {path.name for path in directory.glob(f"bonafide-{os.getpid()}-tensors-*")}


async def settle(opened: TritonEngine) -> None:
    """Let the engine find its way."""
    await opened.infer("tiny", pixels(), timeout=10)


async def test_answers_are_those_of_the_message_and_nothing_is_left(
    triton_server: tuple[str, str], tiny_repository: Path
) -> None:
    local = EmbeddedEngine(ModelRepository(tiny_repository))
    async with engine(triton_server[0], LARGE) as opened:
        assert not opened.by_shared_memory
        await settle(opened)
        assert opened.by_shared_memory
        batches = [pixels(1000 + index) for index in range(24)]  # far more at once than there are regions
        answers = await asyncio.gather(*(opened.infer("tiny", batch, timeout=30) for batch in batches))
        assert 1 <= len(files()) <= 2
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer["scores"], local.run("tiny", batch)["scores"])
    assert files() == set()
    async with InferenceServerClient(triton_server[0]) as operator:
        assert not (await operator.get_system_shared_memory_status()).regions


async def test_small_and_too_large_tensors_stay_in_the_message(triton_server: tuple[str, str]) -> None:
    async with engine(triton_server[0], LARGE) as opened:
        await opened.infer("tiny", pixels(100), timeout=10)
        await opened.infer("tiny", pixels(1 << 18), timeout=10)
        assert not opened.by_shared_memory
        assert files() == set()


@pytest.mark.parametrize(
    "limits",
    [TritonLimits(shared_region_bytes=1 << 50, shared_from_bytes=1), TritonLimits(shared_regions=0)],
    ids=["full", "turned off"],
)
async def test_no_room_and_no_leave_mean_messages(triton_server: tuple[str, str], limits: TritonLimits) -> None:
    async with engine(triton_server[0], limits) as opened:
        for _ in range(2):
            assert (await opened.infer("tiny", pixels(), timeout=10))["scores"].shape == (2, 10_000, 3)
        assert not opened.by_shared_memory
        assert files() == set()


async def test_a_server_that_cannot_see_our_memory_gets_messages(
    triton_server: tuple[str, str], tmp_path: Path
) -> None:
    async with InferenceServerClient(triton_server[0]) as client:
        elsewhere = SharedTensors(client, regions=1, region_bytes=1 << 20, directory=tmp_path)
        passing = TensorPassing(elsewhere, from_bytes=1)

        async def call(tensors: list[object]) -> dict[str, Array]:
            return {"scores": (await client.infer("tiny", tensors)).as_numpy("scores")}

        for _ in range(2):
            assert (await passing.run(pixels(), call))["scores"].shape == (2, 10_000, 3)
        assert not passing.by_shared_memory
        await passing.close()
    assert files(tmp_path) == set()


async def test_an_answer_that_differs_turns_it_off(triton_server: tuple[str, str]) -> None:
    async with InferenceServerClient(triton_server[0]) as client:
        passing = TensorPassing(SharedTensors(client, regions=1, region_bytes=1 << 20), from_bytes=1)
        calls = 0

        async def call(_: list[object]) -> dict[str, Array]:
            nonlocal calls
            calls += 1
            return {"scores": np.full(3, calls, np.float32)}

        first = await passing.run(pixels(), call)
        await passing.run(pixels(), call)
        assert first["scores"][0] == 1  # what the message gave
        assert calls == 3  # both ways once, then the message only
        await passing.close()


async def test_a_restarted_server_gets_the_regions_anew(
    installation: triton.TritonInstallation, tiny_repository: Path, tmp_path: Path
) -> None:
    ports = tuple(free_ports(2))
    process, address, _ = start_triton(installation, tiny_repository, ["tiny"], tmp_path, ports=ports)
    local = EmbeddedEngine(ModelRepository(tiny_repository))
    async with engine(address, LARGE) as opened:
        try:
            await settle(opened)
            before = files()
            kill_triton(process, address)
            process, _, _ = start_triton(installation, tiny_repository, ["tiny"], tmp_path, ports=ports)
            for _ in range(3):
                batch = pixels()
                answer = await opened.infer("tiny", batch, timeout=20)
                np.testing.assert_array_equal(answer["scores"], local.run("tiny", batch)["scores"])
            assert opened.by_shared_memory
            assert files()
            assert files() != before
        finally:
            kill_triton(process, address)
    assert files() == set()


def test_regions_of_the_dead_are_removed_and_those_of_the_living_are_not() -> None:
    own = Region.make(SHARED_MEMORY, f"bonafide-{os.getpid()}-tensors-own", 4096)
    program = (
        "import time; from services.common.shared_tensors import *;"
        "region = Region.make(SHARED_MEMORY, 'bonafide-1-tensors-other', 4096);"
        "print('made', flush=True); time.sleep(60)"
    )
    try:
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "made\n"
            assert "bonafide-1-tensors-other" not in sweep()
            other.send_signal(signal.SIGKILL)
        assert (SHARED_MEMORY / "bonafide-1-tensors-other").exists()
        assert "bonafide-1-tensors-other" in sweep()
        assert not (SHARED_MEMORY / "bonafide-1-tensors-other").exists()
        assert own.path.exists()
    finally:
        own.drop()
    assert not own.path.exists()


async def test_what_the_dead_left_in_the_server_is_let_go(triton_server: tuple[str, str]) -> None:
    name = "bonafide-999999-tensors-dead-1"
    left = Region.make(SHARED_MEMORY, name, 4096)
    async with InferenceServerClient(triton_server[0]) as client:
        await client.register_system_shared_memory(name, f"/{name}", 4096)
        shared = SharedTensors(client, regions=1, region_bytes=4096)
        await shared.tidy()
        assert name in (await client.get_system_shared_memory_status()).regions  # its owner lives: we do
        left.drop()
        await shared.tidy()
        assert name not in (await client.get_system_shared_memory_status()).regions
