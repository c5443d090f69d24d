"""Models that die, hang or go away are noticed by a real inference, brought back, or named. Real Triton."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from deploy.local import triton
from deploy.local.processes import ManagedProcess, free_ports, stop_together
from services.common.errors import BonafideError, DeadlineError, ModelNotDeployedError, UnavailableError
from services.common.inference import EmbeddedEngine, TritonEngine, TritonLimits
from services.common.model_metrics import ModelMetrics
from services.common.model_service import models_ready
from services.common.models import ModelRepository
from services.common.triton_care import ServedModel, read_config, synthetic_inputs
from tests.local.conftest import kill_triton, start_triton
from tests.local.test_triton import metric

INPUTS = {"pixels": np.ones((1, 2, 4), np.uint8)}
QUICK = TritonLimits(patience_seconds=0.3, probe_seconds=2.0, heal=False)


@pytest.fixture(scope="module")
def server(
    installation: triton.TritonInstallation, tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ManagedProcess, str]]:
    """A Triton that tests may harm, as long as they heal it again."""
    directory = tmp_path_factory.mktemp("harmed")
    process, address, _ = start_triton(installation, tiny_repository, ["tiny"], directory)
    try:
        yield process, address
    finally:
        kill_triton(process, address)


@asynccontextmanager
async def engine(address: str, limits: TritonLimits | None = None) -> AsyncIterator[TritonEngine]:
    opened = TritonEngine(address, limits=limits)
    try:
        yield opened
    finally:
        await opened.close()


def stub(process: ManagedProcess) -> int:
    """Process id of the one model's newest process."""
    children = [
        child
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
        if "tiny" in Path(f"/proc/{child}/cmdline").read_text() and not _stopped(child)
    ]
    return max(map(int, children))


def _stopped(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T"


async def until_it_answers(opened: TritonEngine) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await opened.check([ServedModel("tiny")])
            except BonafideError:
                await asyncio.sleep(0.2)
            else:
                return


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_dead_model_is_noticed_and_brought_back(
    server: tuple[ManagedProcess, str], number: signal.Signals
) -> None:
    process, address = server
    async with engine(address) as opened:
        await opened.check([ServedModel("tiny")])
        os.kill(stub(process), number)
        with pytest.raises(BonafideError, match="model tiny") as noticed:
            await opened.check([ServedModel("tiny")])
        assert noticed.value.reason in {"MODEL_DEAD", "MODEL_HUNG"}
        await until_it_answers(opened)
        assert (await opened.infer("tiny", INPUTS, timeout=10))["scores"].shape == (1, 2, 3)


async def test_a_call_waits_while_its_model_is_brought_back(server: tuple[ManagedProcess, str]) -> None:
    process, address = server
    async with engine(address, TritonLimits(patience_seconds=60)) as opened:
        before = await opened.infer("tiny", INPUTS, timeout=10)
        os.kill(stub(process), signal.SIGKILL)
        after = await opened.infer("tiny", INPUTS, timeout=60)
    np.testing.assert_array_equal(before["scores"], after["scores"])


async def test_without_leave_to_heal_it_is_only_reported(server: tuple[ManagedProcess, str]) -> None:
    process, address = server
    async with engine(address, QUICK) as opened:
        os.kill(stub(process), signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(BonafideError) as noticed:
                await opened.check([ServedModel("tiny")])
            assert noticed.value.reason == "MODEL_DEAD"
        with pytest.raises(UnavailableError) as failed:
            await opened.infer("tiny", INPUTS, timeout=10)
        assert failed.value.reason == "MODEL_DEAD"
    async with engine(address) as healer:
        await until_it_answers(healer)


async def test_a_server_that_is_killed_or_hangs_is_named_and_its_return_is_noticed(
    installation: triton.TritonInstallation, tiny_repository: Path, tmp_path: Path
) -> None:
    ports = tuple(free_ports(2))
    process, address, _ = start_triton(installation, tiny_repository, ["tiny"], tmp_path, ports=ports)
    async with engine(address, QUICK) as opened:
        try:
            await opened.check([ServedModel("tiny")])
            os.kill(process.pid, signal.SIGSTOP)
            with pytest.raises(BonafideError) as hangs:
                await opened.check([ServedModel("tiny")])
            with pytest.raises(DeadlineError):
                await opened.infer("tiny", INPUTS, timeout=0.5)
        finally:
            kill_triton(process, address)
        with pytest.raises(BonafideError) as gone:
            await opened.check([ServedModel("tiny")])
        with pytest.raises(UnavailableError) as unreachable:
            await opened.infer("tiny", INPUTS, timeout=10)
        reasons = {hangs.value.reason, gone.value.reason, unreachable.value.reason}
        assert reasons == {"INFERENCE_UNREACHABLE"}
        process, _, _ = start_triton(installation, tiny_repository, ["tiny"], tmp_path, ports=ports)
        try:
            await until_it_answers(opened)
            assert "scores" in await opened.infer("tiny", INPUTS, timeout=10)
        finally:
            stop_together([process], 10)


async def test_a_model_that_is_not_loaded_is_loaded_by_the_readiness_check(
    server: tuple[ManagedProcess, str], tiny_repository: Path
) -> None:
    async with engine(server[1]) as opened:
        async with InferenceServerClient(server[1]) as operator:
            await operator.unload_model("tiny")
        ready = models_ready(ModelRepository(tiny_repository), opened, ModelMetrics.unscraped(), required=["tiny"])
        with pytest.raises(BonafideError, match="not loaded") as missing:
            await ready()
        assert missing.value.reason == "MODEL_NOT_LOADED"
        await until_it_answers(opened)
        await ready()


async def test_every_failure_has_its_type(triton_server: tuple[str, str]) -> None:
    async with engine(triton_server[0], QUICK) as opened:
        with pytest.raises(BonafideError) as refused:
            await opened.infer("tiny", {"pixels": np.ones((1, 2, 5), np.uint8)}, timeout=10)
        with pytest.raises(ModelNotDeployedError):
            await opened.infer("nobody", INPUTS, timeout=10)
        with pytest.raises(DeadlineError):
            await opened.infer("tiny", INPUTS, timeout=0)
    assert refused.value.reason == "MODEL_REFUSED_INPUT"


async def test_calls_to_one_model_are_bounded(triton_server: tuple[str, str]) -> None:
    """One at a time cannot be batched by the server, so it runs as often as it is asked."""
    address, metrics = triton_server
    before = metric(metrics, "nv_inference_exec_count")
    async with engine(address, TritonLimits(calls_per_model=1)) as opened:
        await asyncio.gather(*(opened.infer("tiny", INPUTS, timeout=30) for _ in range(8)))
    assert metric(metrics, "nv_inference_exec_count") - before >= 7  # the last may not be counted yet


@pytest.mark.parametrize("name", ModelRepository(Path("model_repository")).names())
def test_every_served_model_takes_its_synthetic_input(name: str) -> None:
    repository = ModelRepository(Path("model_repository"))
    config = read_config(repository.root / name / "config.pbtxt")
    outputs = EmbeddedEngine(repository).run(name, synthetic_inputs(config))
    assert {output.name for output in config.output} == set(outputs)
