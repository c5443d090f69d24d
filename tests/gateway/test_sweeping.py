"""Expired uploads go by themselves: nobody has to call, and a disk that fails does not end it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.server import ServiceProcess
from services.gateway.__main__ import build
from services.gateway.settings import GatewaySettings
from services.gateway.sweeping import keep_swept
from services.gateway.uploads import StoreLimits, UploadStore

LIMITS = StoreLimits(
    max_file_bytes=1000, uploads_per_caller=3, bytes_per_caller=2000, keep_seconds=0.05, reserve_bytes=0
)


def empty(directory: Path) -> bool:
    try:
        return not list(directory.rglob("*.part"))
    except FileNotFoundError:  # a directory was deleted while it was read
        return False


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came true")


async def test_a_gateway_deletes_what_expires_while_nobody_calls(tmp_path: Path) -> None:
    settings = GatewaySettings(
        spool_directory=tmp_path,
        upload_keep_seconds=0.2,
        upload_sweep_seconds=0.02,
        allow_anonymous=True,
        drain_notice_seconds=0,
        visual_address="127.0.0.1:1",
        audio_address="127.0.0.1:1",
        fusion_address="127.0.0.1:1",
    )
    stop = asyncio.Event()
    process = asyncio.create_task(ServiceProcess(build(settings), settings).serve(stop))
    settings.upload_store().create("ann", 100)
    assert not empty(tmp_path)
    try:
        await until(lambda: empty(tmp_path))
    finally:
        stop.set()
        await asyncio.wait_for(process, 20)


async def test_a_disk_that_fails_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "spool"
    store = UploadStore(directory, LIMITS)
    shutil.rmtree(directory)
    sweeping = asyncio.create_task(keep_swept(store, 0.01))
    try:
        await until(lambda: "could not be deleted" in caplog.text)
        directory.mkdir()
        store.create("ann", 100)
        await until(lambda: empty(directory))
    finally:
        sweeping.cancel()
    assert str(directory) not in caplog.text
