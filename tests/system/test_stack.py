"""The stack as an operator meets it: it starts whole, refuses what it cannot trust, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from bonafide.analysis import Analysis
from bonafide.client import AnalysisFailedError, Client, ServerUnreachableError
from deploy.local.stack import ROOT, Stack, StackError, StackOptions
from services.common.inference import EmbeddedEngine, TritonEngine
from services.common.models import ModelRepository
from services.common.settings import EngineChoice
from tests import media_factory as make

NUMPY_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    members = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # threads come and go
            members += [member for child in task.read_text().split() for member in family(int(child))]
    return members


def command_line(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def analyzed_once_ready(client: Client, data: bytes, seconds: float = 60.0) -> Analysis:
    """The analysis of a clip, asked for again while the server says that it is not there yet."""
    ends = time.monotonic() + seconds
    while True:
        try:
            return client.analyze(io.BytesIO(data), timeout=seconds)
        except (ServerUnreachableError, AnalysisFailedError):
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


def wait_until_gone(pids: list[int], seconds: float = 15.0) -> list[int]:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if not any(alive(pid) for pid in pids):
            return []
        time.sleep(0.1)
    return [pid for pid in pids if alive(pid)]


def start_up(port: int) -> tuple[subprocess.Popen[str], list[str]]:
    command = [sys.executable, "-m", "bonafide.cli", "up", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("up:"):
            return process, lines
    raise AssertionError("".join(lines))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_says_a_line_for_each_process_and_leaves_nothing_behind(number: signal.Signals, free_port: int) -> None:
    process, lines = start_up(free_port)
    assert process.stdout is not None
    with process.stdout:
        try:
            for name in ("visual", "audio", "fusion", "gateway"):
                assert sum(line.startswith(name) and " ready on " in line for line in lines) == 1
            members = family(process.pid)
            assert len(members) >= 5
            os.kill(process.pid, number)
            process.wait(60)
        finally:
            process.kill()
            process.wait(10)
    assert wait_until_gone(members) == []
    if number is not signal.SIGKILL:  # a killed parent cannot tidy up; the next start does
        assert not list(Path("/dev/shm").glob(f"bonafide-{process.pid}-*"))


def test_one_altered_byte_of_a_served_model_stops_the_start_and_is_named(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(ROOT / "model_repository", repository)
    file = repository / "frame_classifier" / "1" / "model.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    options = StackOptions(repository=repository, run_directory=tmp_path / "run", engine=EngineChoice.EMBEDDED)
    with pytest.raises(StackError, match=r"frame_classifier/1/model\.onnx"), Stack(options, say=lambda _: None):
        pass


def model_inputs(file: Path) -> Mapping[str, npt.NDArray[np.generic]]:
    """Random inputs of the shapes that a graph takes; free sizes other than the batch are 64."""
    random = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    made: dict[str, npt.NDArray[np.generic]] = {}
    for value in session.get_inputs():
        shape = [2 if axis == 0 else (size if isinstance(size, int) else 64) for axis, size in enumerate(value.shape)]
        if value.name == "samples":
            shape[1] = 48_000
        kind = NUMPY_TYPES[value.type]
        made[value.name] = (
            random.integers(0, 255, shape).astype(kind)
            if kind is not np.float32
            else random.normal(0, 0.05, shape).astype(np.float32)
        )
    return made


async def test_both_engines_give_the_same_numbers(stack: Stack) -> None:
    if stack.engine is not EngineChoice.TRITON:
        pytest.skip("Triton does not run here")
    repository = ModelRepository(ROOT / "model_repository")
    embedded, triton = EmbeddedEngine(repository), TritonEngine(stack.addresses["triton"])
    for name in repository.names():
        inputs = model_inputs(repository.model_file(repository.card(name)))
        one = embedded.run(name, inputs)
        other = await triton.infer(name, inputs, timeout=30)
        assert one.keys() == other.keys()
        for output in one:
            assert np.array_equal(one[output], other[output], equal_nan=True), (name, output)
    await triton.close()


def test_nobody_listening_is_exit_code_three(free_port: int, tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    still.write_bytes(make.still_picture("PNG"))
    command = [sys.executable, "-m", "bonafide.cli", "analyze", str(still), "--server", f"127.0.0.1:{free_port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_killed_service_is_started_again_by_up(free_port: int) -> None:
    process, lines = start_up(free_port)
    assert process.stdout is not None
    with process.stdout:
        try:
            fusion = next(pid for pid in family(process.pid) if b"services.fusion" in command_line(pid))
            os.kill(fusion, signal.SIGKILL)
            lines += itertools.takewhile(lambda line: line != "fusion started again\n", process.stdout)
            assert f"fusion ended with code {-signal.SIGKILL}" in lines[-1]
            with Client(f"127.0.0.1:{free_port}") as client:
                assert analyzed_once_ready(client, make.still_picture()).media.still
        finally:
            process.terminate()
            process.wait(60)
