"""Networks run without a word to the maker of the library that runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RUN = """
import numpy as np
from onnx import TensorProto, helper
from services.common.inference import onnxruntime
value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "tiny", [value], [out])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
print(onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": np.float32([-2])})[0][0])
"""


def test_nothing_is_kept_at_home_and_nobody_is_told(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "2.0"
    assert list(tmp_path.rglob("*")) == []
