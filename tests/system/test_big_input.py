"""A real gateway process takes files far larger than its memory budget, and one that is killed goes on with them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from bonafide.v1 import analysis_pb2, analysis_pb2_grpc, upload_pb2, upload_pb2_grpc
from deploy.local.processes import ManagedProcess
from services.common.status import error_reason
from tests.system.watching import open_files, peak_bytes

CHUNK = os.urandom(256 << 10)
SMALL, LARGE = 96 << 20, 384 << 20
IN_MEMORY = 8 << 20


class Gateway:
    """One gateway on its own: without peers it judges nothing, and takes every byte all the same."""

    def __init__(self, address: str, directory: Path) -> None:
        self.address = address
        self._directory = directory
        self._start()

    def _start(self) -> None:
        settings = {
            "LISTEN": self.address,
            "SPOOL_DIRECTORY": str(self._directory / "spool"),
            "SPOOL_MEMORY_BYTES": str(IN_MEMORY),
            "DRAIN_SECONDS": "1",
        }
        environment = {f"BONAFIDE_GATEWAY_{name}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "services.gateway"]
        self._process = ManagedProcess("gateway", command, environment, self._directory / "gateway.log")
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 200)]
        self.channel = grpc.insecure_channel(self.address, options=options)
        grpc.channel_ready_future(self.channel).result(timeout=30)

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill_and_restart(self) -> None:
        self.channel.close()
        os.kill(self.pid, 9)
        self._process.wait(10)
        self._start()

    def stop(self) -> None:
        self.channel.close()
        self._process.ask_to_stop()
        self._process.wait(10)


@pytest.fixture
def gateway(tmp_path: Path, free_port: int) -> Iterator[Gateway]:
    running = Gateway(f"127.0.0.1:{free_port}", tmp_path)
    yield running
    running.stop()


def stretch(upload_id: str, offset: int, size: int) -> Iterator[upload_pb2.SendChunksRequest]:
    yield upload_pb2.SendChunksRequest(start=upload_pb2.UploadStart(upload_id=upload_id, offset=offset))
    for _ in range(offset, size, len(CHUNK)):
        yield upload_pb2.SendChunksRequest(chunk=CHUNK)


def plain(size: int) -> Iterator[analysis_pb2.AnalyzeRequest]:
    yield analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions())
    for _ in range(0, size, len(CHUNK)):
        yield analysis_pb2.AnalyzeRequest(chunk=CHUNK)


def send(gateway: Gateway, size: int) -> str:
    stub = upload_pb2_grpc.UploadServiceStub(gateway.channel)
    created = stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=size), timeout=10)
    upload_id = str(created.upload.upload_id)
    assert stub.SendChunks(stretch(upload_id, 0, size), timeout=90).upload.complete
    return upload_id


def refusal(gateway: Gateway, messages: Iterator[analysis_pb2.AnalyzeRequest]) -> str:
    stub = analysis_pb2_grpc.AnalysisServiceStub(gateway.channel)
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.Analyze(messages, timeout=90))
    return error_reason(refused.value)


def test_memory_does_not_grow_with_the_file(gateway: Gateway) -> None:
    def all_ways(size: int) -> None:
        upload_id = send(gateway, size)
        kept = analysis_pb2.AnalyzeRequest(options=analysis_pb2.AnalyzeOptions(upload_id=upload_id))
        assert refusal(gateway, iter([kept])) == "UNSUPPORTED_MEDIA"
        assert refusal(gateway, plain(size)) == "UNSUPPORTED_MEDIA"
        stub = upload_pb2_grpc.UploadServiceStub(gateway.channel)
        stub.DeleteUpload(upload_pb2.DeleteUploadRequest(upload_id=upload_id), timeout=10)

    all_ways(SMALL)
    small, files = peak_bytes(gateway.pid), open_files(gateway.pid)
    all_ways(LARGE)
    assert peak_bytes(gateway.pid) - small < 64 << 20
    assert open_files(gateway.pid) <= files


def test_a_gateway_that_is_killed_goes_on_where_it_was(gateway: Gateway) -> None:
    stub = upload_pb2_grpc.UploadServiceStub(gateway.channel)
    upload_id = stub.CreateUpload(upload_pb2.CreateUploadRequest(size_bytes=SMALL), timeout=10).upload.upload_id

    def pausing() -> Iterator[upload_pb2.SendChunksRequest]:
        yield from stretch(upload_id, 0, SMALL // 2)
        time.sleep(2)  # the process is killed meanwhile

    call = stub.SendChunks.future(pausing(), timeout=30)
    for _ in range(200):
        received = stub.GetUpload(upload_pb2.GetUploadRequest(upload_id=upload_id), timeout=10).upload.received_bytes
        if received == SMALL // 2:
            break
        time.sleep(0.02)
    gateway.kill_and_restart()
    assert isinstance(call.exception(timeout=10), grpc.RpcError)
    stub = upload_pb2_grpc.UploadServiceStub(gateway.channel)
    received = stub.GetUpload(upload_pb2.GetUploadRequest(upload_id=upload_id), timeout=10).upload.received_bytes
    assert received == SMALL // 2
    assert stub.SendChunks(stretch(upload_id, received, SMALL), timeout=30).upload.complete
