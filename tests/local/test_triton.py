"""Triton over a real model repository: same numbers as in-process, batched, errors where they belong."""

from __future__ import annotations

import asyncio
import shutil
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.local import triton
from deploy.local.processes import stop_together
from services.common.errors import BonafideError, ModelNotDeployedError
from services.common.inference import EmbeddedEngine, TritonEngine
from services.common.models import ModelRepository
from tests.local.conftest import start_triton, write_model

RNG = np.random.default_rng(1)


def pixels(batch: int, length: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return RNG.integers(0, 256, (batch, length, 4), dtype=np.uint8)


def metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


async def test_scores_equal_those_of_the_embedded_engine(triton_server: tuple[str, str], tiny_repository: Path) -> None:
    remote, local = TritonEngine(triton_server[0]), EmbeddedEngine(ModelRepository(tiny_repository))
    inputs = {"pixels": pixels(5, 3)}
    try:
        found = await remote.infer("tiny", inputs, timeout=10)
    finally:
        await remote.close()
    assert found["scores"].dtype == np.float32
    np.testing.assert_array_equal(found["scores"], local.run("tiny", inputs)["scores"])


async def test_concurrent_requests_are_run_together_and_answered_apart(
    triton_server: tuple[str, str], tiny_repository: Path
) -> None:
    address, metrics = triton_server
    remote, local = TritonEngine(address), EmbeddedEngine(ModelRepository(tiny_repository))
    batches = [{"pixels": pixels(1 + index % 2, 2)} for index in range(12)]
    before = metric(metrics, "nv_inference_exec_count")
    try:
        answers = await asyncio.gather(*(remote.infer("tiny", inputs, timeout=10) for inputs in batches))
    finally:
        await remote.close()
    for inputs, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer["scores"], local.run("tiny", inputs)["scores"])
    assert metric(metrics, "nv_inference_exec_count") - before < len(batches)


async def test_requests_of_different_lengths_do_not_disturb_each_other(triton_server: tuple[str, str]) -> None:
    remote = TritonEngine(triton_server[0])
    try:
        answers = await asyncio.gather(
            *(remote.infer("tiny", {"pixels": pixels(1, length)}, timeout=10) for length in (1, 2, 3, 1, 2, 3))
        )
    finally:
        await remote.close()
    assert [answer["scores"].shape for answer in answers] == [(1, n, 3) for n in (1, 2, 3, 1, 2, 3)]


async def test_a_bad_request_fails_and_the_next_one_is_answered(triton_server: tuple[str, str]) -> None:
    remote = TritonEngine(triton_server[0])
    try:
        with pytest.raises(BonafideError) as refused:
            await remote.infer("tiny", {"pixels": pixels(1, 2).astype(np.float32)}, timeout=10)
        assert refused.value.reason == "MODEL_REFUSED_INPUT"
        with pytest.raises(ModelNotDeployedError):
            await remote.infer("nobody", {"pixels": pixels(1, 2)}, timeout=10)
        assert (await remote.infer("tiny", {"pixels": pixels(1, 2)}, timeout=10))["scores"].shape == (1, 2, 3)
    finally:
        await remote.close()


def test_the_backend_directory_holds_copies_and_is_made_once(
    installation: triton.TritonInstallation, tmp_path: Path
) -> None:
    directory = triton.assemble_backends(installation, tmp_path)
    assert triton.assemble_backends(installation, tmp_path) == directory
    files = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    assert files == [
        "onnxruntime/model.py",
        "python/libtriton_python.so",
        "python/triton_python_backend_stub",
        "python/triton_python_backend_utils.py",
    ]
    assert not any(path.is_symlink() for path in directory.rglob("*"))
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]


def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(triton.TritonUnavailableError, match=r"there is no .venv-nowhere environment"):
        triton.find_installation(tmp_path / ".venv-nowhere")


def test_numpy_2_is_refused(installation: triton.TritonInstallation, tmp_path: Path) -> None:
    """An interpreter that finds numpy 2 first stands for an environment that holds it."""
    environment = tmp_path / "environment"
    site = environment / "lib" / f"python{installation.python_version}" / "site-packages"
    (site / "numpy-2.0.0.dist-info").mkdir(parents=True)
    (site / "numpy-2.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.0.0\n")
    (environment / "bin").mkdir()
    (environment / "bin" / "python3").symlink_to(installation.python.resolve())
    shutil.copy(installation.python.parents[1] / "pyvenv.cfg", environment)
    with pytest.raises(triton.TritonUnavailableError, match=r"numpy 2\.0\.0"):
        triton.find_installation(environment)


def test_only_models_with_the_bytes_of_their_card_are_loaded(tmp_path: Path) -> None:
    write_model(tmp_path, "good")
    altered = write_model(tmp_path, "altered")
    altered.write_bytes(altered.read_bytes()[:-1] + b"!")
    (tmp_path / "bare").mkdir()
    loadable, refused = triton.loadable_models(ModelRepository(tmp_path))
    assert loadable == ["good"]
    assert list(refused) == ["altered"]
    assert "altered/1/model.onnx" in refused["altered"]


def test_a_stopped_server_leaves_neither_processes_nor_shared_memory(
    installation: triton.TritonInstallation, tiny_repository: Path, tmp_path: Path
) -> None:
    process, address, _ = start_triton(installation, tiny_repository, ["tiny"], tmp_path)
    prefix = f"bonafide-test-{address.rpartition(':')[2]}-"
    assert list(triton.SHARED_MEMORY.glob(prefix + "*"))
    children = _descendants(process.pid)
    assert children
    stop_together([process], 10)
    assert not any(Path("/proc", str(pid)).exists() for pid in [process.pid, *children])
    assert not list(triton.SHARED_MEMORY.glob(prefix + "*"))


def test_stale_shared_memory_of_a_starter_that_is_gone_is_removed() -> None:
    gone = triton.SHARED_MEMORY / "bonafide-999999999-left-over"
    other = triton.SHARED_MEMORY / "bonafide-1-of-one-that-lives"
    for file in (gone, other):
        file.write_bytes(b"x")
    try:
        triton.remove_shared_memory(999999998)
        assert not gone.exists()
        assert other.exists()
    finally:
        other.unlink()


def test_the_server_listens_on_loopback_only(installation: triton.TritonInstallation, tmp_path: Path) -> None:
    plan = triton.TritonPlan(installation, tmp_path, ["a"], tmp_path, 1, 2, "p")
    command = replace(plan, models=["a", "b"]).command()
    assert "--grpc-address=127.0.0.1" in command
    assert "--metrics-address=127.0.0.1" in command
    assert "--allow-http=false" in command
    assert [word for word in command if word.startswith("--load-model")] == ["--load-model=a", "--load-model=b"]


def _descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    tasks = [path for path in Path(f"/proc/{pid}/task").iterdir() if path.name != str(pid)]
    for task in tasks:
        children += [int(child) for child in (task / "children").read_text().split()]
    return children
