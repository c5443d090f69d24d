"""Clients that no one here wrote: buf's, by reflection, and Node's implementation of gRPC, from the contract alone."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from deploy.local.stack import ROOT, Stack
from services.common.models import ModelRepository
from tests import media_factory as make

BUF = Path(sys.executable).with_name("buf")
EXAMPLE = ROOT / "examples" / "node"
SERVICE = "bonafide.v1.AnalysisService"


def buf_curl(stack: Stack, method: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Call a method with JSON messages; the answers, then the error if any, as JSON."""
    if not BUF.exists():
        pytest.skip("buf is not installed (make setup-dev)")
    done = subprocess.run(
        [
            *(BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", "grpc-v1alpha"),
            *("--data", "@-", f"http://{stack.gateway}/{SERVICE}/{method}"),
        ],
        input="\n".join(map(json.dumps, messages)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "BUF_CACHE_DIR": str(ROOT / ".cache" / "buf")},
    )
    decoder, found, text = json.JSONDecoder(), [], (done.stdout + done.stderr).strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


def test_buf_lists_the_models_by_reflection(stack: Stack) -> None:
    (answer,) = buf_curl(stack, "ListModels", {})
    assert {model["name"] for model in answer["models"]} == set(ModelRepository(ROOT / "model_repository").names())


def test_buf_uploads_a_clip_and_reads_its_verdict(stack: Stack) -> None:
    clip = make.Clip(frames=25).bytes()
    half = len(clip) // 2
    chunks = [{"chunk": base64.b64encode(part).decode()} for part in (clip[:half], clip[half:])]
    events = buf_curl(stack, "Analyze", {"options": {"request_id": "from-buf"}}, *chunks)
    analysis = events[-1]["analysis"]
    assert analysis["requestId"] == "from-buf"
    assert analysis["verdict"] == "VERDICT_INCONCLUSIVE"
    assert analysis["media"]["sha256"] == hashlib.sha256(clip).hexdigest()
    assert sum("branch" in event for event in events) == 5


def test_buf_reads_the_reason_of_a_refusal(stack: Stack) -> None:
    *_, error = buf_curl(stack, "Analyze", {"options": {"policy": "no-such-policy"}}, {"chunk": "bm90IG1lZGlh"})
    assert error["code"] == "invalid_argument"
    (packed,) = [detail["value"] for detail in error["details"] if detail["type"] == "google.rpc.ErrorInfo"]
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(packed + "=="))
    assert (info.reason, info.domain) == ("UNSUPPORTED_MEDIA", "bonafide")


@pytest.fixture(scope="session")
def node_example() -> Path:
    """The example with the exact packages of its lock file, installed once into the cache."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    digest = hashlib.sha256((EXAMPLE / "package-lock.json").read_bytes()).hexdigest()[:12]
    packages = ROOT / ".cache" / f"node-{digest}"
    if not (packages / "node_modules").is_dir():
        packages.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(EXAMPLE / name, packages)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode != 0:
            shutil.rmtree(packages / "node_modules", ignore_errors=True)
            pytest.skip(f"the packages of examples/node cannot be installed: {done.stderr.strip()[-200:]}")
    return packages


def node(packages: Path, tmp_path: Path, stack: Stack, data: bytes, *more: str) -> tuple[int, Any]:
    """Run the example on a clip; its exit code and what it printed."""
    clip, room = tmp_path / "clip.mp4", tmp_path / "examples" / "node"
    clip.write_bytes(data)
    room.mkdir(parents=True, exist_ok=True)  # packages are looked up beside the script
    for name, target in {
        room / "analyze.mjs": None,
        room / "node_modules": packages / "node_modules",
        tmp_path / "protos": ROOT / "protos",
    }.items():
        if target is None:
            shutil.copy(EXAMPLE / "analyze.mjs", name)
        elif not name.is_symlink():
            name.symlink_to(target)
    done = subprocess.run(
        ["node", str(room / "analyze.mjs"), stack.gateway, str(clip), *more],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_node_uploads_a_clip_and_reads_its_verdict(stack: Stack, node_example: Path, tmp_path: Path) -> None:
    clip = make.Clip(frames=25, width=640, height=480).bytes()
    code, answer = node(node_example, tmp_path, stack, clip)
    assert code == 0, answer
    assert answer["analysis"]["verdict"] == "VERDICT_INCONCLUSIVE"
    assert "REASON_CODE_TOO_LITTLE_EVIDENCE" in answer["analysis"]["reasons"]
    assert answer["analysis"]["media"]["sha256"] == hashlib.sha256(clip).hexdigest()
    assert answer["events"][-1] == "analysis"
    assert answer["events"].count("branch") == 5


def test_node_decodes_why_it_was_refused(stack: Stack, node_example: Path, tmp_path: Path) -> None:
    code, answer = node(node_example, tmp_path, stack, make.text_file())
    assert code == 1
    assert answer["error"]["code"] == "INVALID_ARGUMENT"
    assert answer["error"]["details"]["ErrorInfo"] == {"reason": "UNSUPPORTED_MEDIA", "domain": "bonafide"}


def test_nodes_deadline_is_kept(stack: Stack, node_example: Path, tmp_path: Path) -> None:
    code, answer = node(node_example, tmp_path, stack, make.Clip(frames=25).bytes(), "0.02")
    assert code == 1
    assert answer["error"]["code"] == "DEADLINE_EXCEEDED"
