"""Triton's ``onnxruntime`` backend where NVIDIA's own is absent: a Python-based backend around the package.

Triton runs one copy of this file, in a process of its own, for every instance of a model whose config says
``backend: "onnxruntime"``. NVIDIA's image has the C++ backend of that name and must never see this one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded; see services/common/quiet_onnxruntime.py

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # Triton provides it

Arrays = dict[str, np.ndarray[Any, Any]]


class TritonPythonModel:
    """One instance of one ONNX model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session that the model's config describes."""
        config = json.loads(args["model_config"])
        name = config["default_model_filename"] or "model.onnx"
        file = Path(args["model_repository"]) / args["model_version"] / name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _integer(config, "intra_op_thread_count", 1)
        options.inter_op_num_threads = _integer(config, "inter_op_thread_count", 1)
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._batches = config["max_batch_size"] > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that Triton batched, in order: joined, run once, sliced back."""
        arrays = [self._read(request) for request in requests]
        if self._batches and len(requests) > 1:
            try:
                return self._run_joined(arrays)
            except Exception:  # noqa: BLE001, S110 - one bad request must not fail its neighbours: run each alone
                pass
        return [self._run_alone(inputs) for inputs in arrays]

    def finalize(self) -> None:
        """Let go of the session."""
        del self._session

    def _read(self, request: Any) -> Arrays:  # noqa: ANN401 - Triton's type
        return {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}

    def _run(self, inputs: Arrays) -> Arrays:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def _run_joined(self, arrays: list[Arrays]) -> list[Any]:
        joined = {name: np.concatenate([inputs[name] for inputs in arrays]) for name in self._inputs}
        outputs = self._run(joined)
        ends = np.cumsum([len(inputs[self._inputs[0]]) for inputs in arrays])
        starts = [0, *ends[:-1]]
        return [
            _response({name: values[start:end] for name, values in outputs.items()})
            for start, end in zip(starts, ends, strict=True)
        ]

    def _run_alone(self, inputs: Arrays) -> Any:  # noqa: ANN401 - Triton's type
        try:
            return _response(self._run(inputs))
        except Exception as error:  # noqa: BLE001 - the runtime raises bare types; this request's caller is told
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))


def _response(outputs: Arrays) -> Any:  # noqa: ANN401 - Triton's type
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in outputs.items()])


def _integer(config: dict[str, Any], parameter: str, default: int) -> int:
    value = config.get("parameters", {}).get(parameter, {}).get("string_value")
    return int(value) if value else default
