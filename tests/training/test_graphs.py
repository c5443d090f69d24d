"""What is committed as a network says nothing about the machine that made it, and computes what it did."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from training.crop_models import ROOT  # noqa: E402
from training.graphs import forget_traces  # noqa: E402

pytestmark = pytest.mark.training


def test_a_graph_forgets_where_it_was_traced_and_computes_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            network, (torch.ones(2, 3),), path, input_names=["input"], dynamo=True, external_data=False, verbose=False
        )
    given = {"input": np.ones((2, 3), np.float32)}
    (before,) = onnxruntime.InferenceSession(path).run(None, given)
    assert b".py" in path.read_bytes()
    forget_traces(path)
    assert b".py" not in path.read_bytes()
    (after,) = onnxruntime.InferenceSession(path).run(None, given)
    assert np.array_equal(before, after)


def test_no_network_that_is_committed_names_files() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "model_repository/*.onnx"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    models = listed.stdout.split()
    assert models
    assert [name for name in models if b'.py", line' in (ROOT / name).read_bytes()] == []
