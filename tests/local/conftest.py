"""A model repository of tiny graphs, and a real Triton server over it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper, numpy_helper

from deploy.local import triton
from deploy.local.processes import ManagedProcess, free_ports, stop_together
from deploy.local.stack import ROOT
from services.common.certificates import CertificateFiles

CONFIG = """
name: "{name}"
backend: "onnxruntime"
max_batch_size: 16
input [ {{ name: "pixels" data_type: TYPE_UINT8 dims: [ -1, 4 ] }} ]
output [ {{ name: "scores" data_type: TYPE_FP32 dims: [ -1, 3 ] }} ]
instance_group [ {{ count: 1 }} ]
dynamic_batching {{ max_queue_delay_microseconds: 20000 }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""


def tiny_graph() -> onnx.ModelProto:
    """A graph of one matrix product: pixels uint8 [N, T, 4] to scores float32 [N, T, 3]."""
    weights = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["floats", "weights"], ["scores"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "T", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", "T", 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write_model(repository: Path, name: str) -> Path:
    """Add the tiny graph to a repository under a name, with config and card; its ONNX file."""
    file = repository / name / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    onnx.save(tiny_graph(), file)
    card = {
        "version": "1",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "trained_on": "nothing: a test",
        "headline": "none: a test",
        "licence": "Apache-2.0",
    }
    (file.parents[1] / "card.json").write_text(json.dumps(card), encoding="utf-8")
    (file.parents[1] / "config.pbtxt").write_text(CONFIG.format(name=name), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def installation() -> triton.TritonInstallation:
    try:
        return triton.find_installation(ROOT / ".venv-triton")
    except triton.TritonUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repository")
    write_model(repository, "tiny")
    return repository


def start_triton(
    installation: triton.TritonInstallation,
    repository: Path,
    models: list[str],
    directory: Path,
    ports: tuple[int, ...] = (),
    tls: CertificateFiles | None = None,
) -> tuple[ManagedProcess, str, str]:
    """A server that is ready: its process, its gRPC address and the address of its metrics."""
    grpc_port, metrics_port = ports or free_ports(2)
    plan = triton.TritonPlan(
        installation=installation,
        repository=repository,
        models=models,
        backends=triton.assemble_backends(installation, directory),
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        shared_memory_prefix=f"bonafide-test-{grpc_port}-",
        tls=tls,
    )
    process = ManagedProcess("triton", plan.command(), plan.environment(), directory / "triton.log")
    address = f"127.0.0.1:{grpc_port}"
    with _channel(address, tls) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while process.exit_code is None:
            try:
                if stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30).status == 1:
                    return process, address, f"127.0.0.1:{metrics_port}"
            except grpc.RpcError:
                pass
            time.sleep(0.05)
    raise AssertionError(process.log.read_text())


def _channel(address: str, tls: CertificateFiles | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address)
    read = tls.read()
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(read.authorities, read.key, read.chain))


def kill_triton(process: ManagedProcess, address: str) -> None:
    """Kill a server, and remove the shared memory that it could not."""
    process.kill()
    for file in triton.SHARED_MEMORY.glob(f"bonafide-test-{address.rpartition(':')[2]}-*"):
        file.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def triton_server(
    installation: triton.TritonInstallation, tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Addresses of gRPC and of metrics of a Triton that serves the tiny repository."""
    process, address, metrics = start_triton(installation, tiny_repository, ["tiny"], tmp_path_factory.mktemp("triton"))
    try:
        yield address, metrics
    finally:
        stop_together([process], 10)
