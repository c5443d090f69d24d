"""Counts the multiplications of a network from its ONNX graph, for what cannot be timed here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import numpy_helper, shape_inference

from services.common.models import ModelRepository

_SIDES = {"face_detector": (1, 192, 320, 3)}
"""Input shapes where a graph leaves them open: pictures as the visual service sends them."""
_STEPS = 100
"""Length of any other open axis: samples of a series are counted as 100 steps unless named."""
_SAMPLES = {"spoof_classifier": 64_000}


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Size of a network: multiply-accumulates of one item, and operators that a GPU would be told to run."""

    multiplications: int
    operators: int


def arithmetic(repository: ModelRepository, name: str) -> Arithmetic:
    """Count one item through one model. Operators whose shapes stay unknown count nothing: a lower bound."""
    model = onnx.load(repository.model_file(repository.card(name)))
    for given in model.graph.input:
        for place, axis in enumerate(given.type.tensor_type.shape.dim):
            if name in _SIDES:
                axis.dim_value = _SIDES[name][place]
            elif not axis.dim_value:
                axis.dim_value = 1 if place == 0 else _SAMPLES.get(name, _STEPS)
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for tensor in (*inferred.value_info, *inferred.input, *inferred.output):
        shapes[tensor.name] = [axis.dim_value for axis in tensor.type.tensor_type.shape.dim]
    for node in inferred.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = (
                list(numpy_helper.to_array(node.attribute[0].t).shape) if node.attribute[0].HasField("t") else []
            )
    return Arithmetic(sum(_multiplications(node, shapes) for node in inferred.node), len(inferred.node))


def _multiplications(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    known = [shapes.get(name, []) for name in (*node.input[:2], *node.output[:1])]
    if len(known) < 3 or not all(known):
        return 0
    left, right, result = known
    if node.op_type in {"Conv", "ConvTranspose"}:
        return math.prod(result) * math.prod(right[1:])
    if node.op_type in {"MatMul", "Gemm"}:
        return math.prod(result) * left[-1]
    if node.op_type in {"LSTM", "GRU"}:
        steps, batch = left[0], left[1]
        recurrent = shapes.get(node.input[2], [])
        return steps * batch * (math.prod(right) + math.prod(recurrent))
    return 0
