"""Versions side by side on a real Triton: one comes or goes, and calls to the other do not notice."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from deploy.local import triton
from deploy.local.processes import stop_together
from deploy.local.stack import ROOT
from services.common.errors import BonafideError
from services.common.inference import TritonEngine
from services.common.triton_care import ServedModel, read_config
from tests.local.conftest import start_triton, write_model

PIXELS = {"pixels": np.ones((1, 2, 4), np.uint8)}
FIRST, SECOND = ServedModel("tiny", "1"), ServedModel("tiny", "2")


@asynccontextmanager
async def steady_calls(engine: TritonEngine, version: str) -> AsyncIterator[list[BonafideError | None]]:
    """Calls to a version one after another, none tried again; what became of each."""
    endings: list[BonafideError | None] = []

    async def call() -> None:
        while True:
            try:
                await engine.infer("tiny", PIXELS, timeout=10, version=version, patient=False)
                endings.append(None)
            except BonafideError as error:
                endings.append(error)
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(call()) for _ in range(2)]
    try:
        yield endings
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    "config", sorted((ROOT / "model_repository").glob("*/config.pbtxt")), ids=lambda path: path.parent.name
)
def test_every_served_model_keeps_all_of_its_versions(config: Path) -> None:
    """Otherwise Triton would serve the newest alone, whatever the plan says."""
    assert read_config(config).version_policy.WhichOneof("policy_choice") == "all"


async def until_it_answers(engine: TritonEngine, model: ServedModel) -> None:
    while True:
        try:
            await engine.check([model], gently=True)
        except BonafideError as error:
            assert error.reason == "MODEL_NOT_LOADED", error  # noqa: PT017 - the others are none to wait for
            await asyncio.sleep(0.05)
        else:
            return


async def test_a_version_is_loaded_beside_another_and_leaves_again(
    installation: triton.TritonInstallation, tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    file = write_model(repository, "tiny")
    config = repository / "tiny" / "config.pbtxt"
    config.write_text(config.read_text() + "version_policy { all { } }\n")
    process, address, _ = start_triton(installation, repository, ["tiny"], tmp_path)
    engine = TritonEngine(address)
    try:
        async with steady_calls(engine, "1") as endings:
            with pytest.raises(BonafideError) as absent:
                await engine.check([SECOND], gently=True)
            assert absent.value.reason == "MODEL_NOT_LOADED"
            await engine.check([FIRST])
            shutil.copytree(file.parent, repository / "tiny" / "2")
            engine._care._healed_at.clear()  # the pause until it is tried again is not what is tested
            await until_it_answers(engine, SECOND)
            for _ in range(20):
                await engine.infer("tiny", PIXELS, timeout=10, version="2", patient=False)
        assert set(endings) == {None}
        async with steady_calls(engine, "2") as endings:
            file.parent.rename(tmp_path / "gone")
            await engine._client.load_model("tiny")
            with pytest.raises(BonafideError):
                await engine.infer("tiny", PIXELS, timeout=10, version="1", patient=False)
        assert set(endings) <= {None}
    finally:
        await engine.close()
        stop_together([process], 10)
