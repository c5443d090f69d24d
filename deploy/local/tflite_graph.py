"""TensorFlow Lite flatbuffers read as ONNX graphs, for the operators that the face mesh uses.

A network whose activations are pictures is turned from [batch, height, width, channel] to ONNX's
[batch, channel, height, width] once, at its constants and its input. Every first axis is a batch of any size.
PRelu is written as (1 − a)·relu(x) + a·x, because ONNX Runtime's own kernel costs several times more.

Source: the TensorFlow Lite schema (schema.fbs) and the ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tflite
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
OPSET = 18
IR_VERSION = 9
TO_CHANNELS_FIRST = (0, 3, 1, 2)
PICTURE_RANK = 4

_ELEMENT_TYPES: dict[int, type[np.generic]] = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
_ELEMENTWISE = {"ADD": "Add"}
_UNARY = {"LOGISTIC": "Sigmoid"}
_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if isinstance(code, int)}


class GraphWriter:
    """Collects ONNX nodes and constants; names are counted, so equal input gives equal bytes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, values: Array) -> str:
        """Store a constant and answer its name."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401
        """Append a node with one output and answer the output's name."""
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Close the graph and check it."""
        graph = helper.make_graph(self.nodes, name, list(inputs), list(outputs), self.initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="",
            producer_version="",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


class TFLiteGraph:
    """The first subgraph of a flatbuffer, written operator by operator into a GraphWriter."""

    def __init__(self, flatbuffer: bytes, writer: GraphWriter) -> None:
        self._model = tflite.Model.GetRootAsModel(flatbuffer, 0)
        self._graph = self._model.Subgraphs(0)
        self._writer = writer
        self._constants: dict[int, Array] = {}
        self._names: dict[int, str] = {}
        self._read_constants()

    def convert(self, source: str) -> list[str]:
        """Write all operators, reading the network's only input from ``source``.

        Returns:
            The names of the network's outputs, in their order, channels first.

        Raises:
            NotImplementedError: the network uses an operator or an option that is not known here.
        """
        self._names[int(self._graph.InputsAsNumpy()[0])] = source
        for index in range(self._graph.OperatorsLength()):
            self._convert_operator(self._graph.Operators(index))
        return [self._names[int(index)] for index in self._graph.OutputsAsNumpy()]

    def _read_constants(self) -> None:
        for index in range(self._graph.TensorsLength()):
            tensor = self._graph.Tensors(index)
            buffer = self._model.Buffers(tensor.Buffer())
            if not buffer.DataLength():
                continue
            shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
            values = np.frombuffer(buffer.DataAsNumpy().tobytes(), _ELEMENT_TYPES[tensor.Type()])
            self._constants[index] = values.reshape(tuple(shape))

    def _convert_operator(self, operator: Any) -> None:  # noqa: ANN401 - generated bindings are untyped
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = _NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = [int(index) for index in operator.InputsAsNumpy()]
        output = int(operator.OutputsAsNumpy()[0])
        if kind == "DEQUANTIZE":
            self._constants[output] = self._constants[inputs[0]].astype(np.float32)
            return
        if kind in _ELEMENTWISE:
            self._names[output] = self._writer.node(_ELEMENTWISE[kind], [self._value(index) for index in inputs])
        elif kind in _UNARY:
            self._names[output] = self._writer.node(_UNARY[kind], [self._value(inputs[0])])
        else:
            method: Callable[[Any, list[int]], str] | None = getattr(self, f"_write_{kind.lower()}", None)
            if method is None:
                raise NotImplementedError(f"no conversion for the TensorFlow Lite operator {kind}")
            self._names[output] = method(operator, inputs)

    def _value(self, index: int) -> str:
        """Name of a tensor, storing it first if it is a constant."""
        if index not in self._names:
            values = self._constants[index]
            if values.ndim:
                padded = values.reshape((1,) * (PICTURE_RANK - values.ndim) + values.shape)
                values = padded.transpose(TO_CHANNELS_FIRST)
            self._names[index] = self._writer.constant(values)
        return self._names[index]

    def _shape(self, index: int) -> list[int]:
        return [int(size) for size in self._graph.Tensors(index).ShapeAsNumpy()]

    def _activated(self, name: str, options: Any) -> str:  # noqa: ANN401
        activation = options.FusedActivationFunction()
        if activation == tflite.ActivationFunctionType.RELU:
            return self._writer.node("Relu", [name])
        if activation != tflite.ActivationFunctionType.NONE:
            raise NotImplementedError(f"no conversion for fused activation {activation}")
        return name

    def _window(self, source: int, kernel: Sequence[int], options: Any) -> dict[str, Any]:  # noqa: ANN401
        """Strides and explicit padding; TensorFlow's SAME puts the odd pixel at the end."""
        strides = [options.StrideH(), options.StrideW()]
        pads = [0, 0, 0, 0]
        if options.Padding() == tflite.Padding.SAME:
            for axis in range(2):
                size = self._shape(source)[1 + axis]
                steps = -(-size // strides[axis])
                total = max((steps - 1) * strides[axis] + kernel[axis] - size, 0)
                pads[axis], pads[axis + 2] = total // 2, total - total // 2
        return {"kernel_shape": list(kernel), "strides": strides, "pads": pads}

    def _write_conv_2d(self, operator: Any, inputs: list[int]) -> str:  # noqa: ANN401
        options = _options(operator, tflite.Conv2DOptions())
        weights, bias = self._constants[inputs[1]], self._constants[inputs[2]]
        kernel = self._writer.constant(weights.transpose(TO_CHANNELS_FIRST))
        window = self._window(inputs[0], weights.shape[1:3], options)
        operands = [self._value(inputs[0]), kernel, self._writer.constant(bias)]
        return self._activated(self._writer.node("Conv", operands, **window), options)

    def _write_depthwise_conv_2d(self, operator: Any, inputs: list[int]) -> str:  # noqa: ANN401
        options = _options(operator, tflite.DepthwiseConv2DOptions())
        weights = self._constants[inputs[1]]
        if options.DepthMultiplier() != 1:
            raise NotImplementedError("only depthwise convolutions with one filter a channel")
        kernel = self._writer.constant(weights.transpose(3, 0, 1, 2))
        window = self._window(inputs[0], weights.shape[1:3], options)
        operands = [self._value(inputs[0]), kernel, self._writer.constant(self._constants[inputs[2]])]
        return self._activated(self._writer.node("Conv", operands, group=weights.shape[3], **window), options)

    def _write_max_pool_2d(self, operator: Any, inputs: list[int]) -> str:  # noqa: ANN401
        options = _options(operator, tflite.Pool2DOptions())
        window = self._window(inputs[0], (options.FilterHeight(), options.FilterWidth()), options)
        return self._activated(self._writer.node("MaxPool", [self._value(inputs[0])], **window), options)

    def _write_prelu(self, _: Any, inputs: list[int]) -> str:  # noqa: ANN401
        slope = self._constants[inputs[1]].reshape(1, 1, 1, -1).transpose(TO_CHANNELS_FIRST)
        source = self._value(inputs[0])
        above = self._writer.node("Relu", [source])
        rest = self._writer.node("Mul", [above, self._writer.constant(1 - slope)])
        linear = self._writer.node("Mul", [source, self._writer.constant(slope)])
        return self._writer.node("Add", [rest, linear])

    def _write_pad(self, _: Any, inputs: list[int]) -> str:  # noqa: ANN401
        amounts = self._constants[inputs[1]].astype(np.int64)[list(TO_CHANNELS_FIRST)]
        return self._writer.node("Pad", [self._value(inputs[0]), self._writer.constant(amounts.T.ravel())])

    def _write_reshape(self, _: Any, inputs: list[int]) -> str:  # noqa: ANN401
        shape = self._constants[inputs[1]].astype(np.int64)
        return self._writer.node(
            "Reshape", [self._value(inputs[0]), self._writer.constant(np.array([-1, *shape[1:]], np.int64))]
        )


def _options(operator: Any, options: Any) -> Any:  # noqa: ANN401 - generated bindings are untyped
    table = operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options
