"""The two third-party face networks, reshaped into the graphs that the model repository serves.

All take what a service already has, uint8 RGB pictures, in batches of any size.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.local.tflite_graph import GraphWriter, TFLiteGraph

LANDMARKS = 478
ROI_SIZE = 256


def face_detector(yunet: bytes) -> bytes:
    """YuNet (Wu, Peng and Yu 2023) for batches of pictures of any size that is a multiple of 32.

    The picture is RGB where YuNet was trained on BGR: the first layer's weights are swapped instead of the
    pixels. The outputs of the three strides are joined along the anchors, stride 8 first.

    Args:
        yunet: ONNX with input [1, 3, 640, 640].

    Returns:
        ONNX with input ``frames`` and outputs ``cls``, ``obj``, ``bbox``, ``kps``.
    """
    model = onnx.load_from_string(yunet)
    graph = model.graph
    source = graph.input[0].name
    _swap_first_layer_channels(graph, source)
    _free_batch_of_reshapes(graph)
    head = [
        helper.make_node("Transpose", ["frames"], ["frames_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["frames_first"], [source], to=TensorProto.FLOAT),
    ]
    widths = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    joints = [
        helper.make_node("Concat", [f"{name}_{stride}" for stride in (8, 16, 32)], [name], axis=1) for name in widths
    ]
    result = helper.make_graph(
        [*head, *graph.node, *joints],
        "face_detector",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "p", width]) for name, width in widths.items()],
        list(graph.initializer),
    )
    return _serialised(helper.make_model(result, opset_imports=model.opset_import, ir_version=model.ir_version))


def face_landmarker(task: bytes) -> bytes:
    """The 478-point mesh of a Face Landmarker bundle.

    Args:
        task: the ``.task`` bundle, a zip of TensorFlow Lite flatbuffers.

    Returns:
        ONNX with input ``crops`` and outputs ``landmarks`` (pixels of the crop) and ``presence`` (logit).
    """
    writer = GraphWriter()
    first = writer.node("Transpose", ["crops"], perm=[0, 3, 1, 2])
    real = writer.node("Cast", [first], to=TensorProto.FLOAT)
    scaled = writer.node("Mul", [real, writer.constant(np.array(1 / 255, np.float32))])
    mesh, presence, *_ = TFLiteGraph(_member(task, "face_landmarks_detector.tflite"), writer).convert(scaled)
    shapes = {"landmarks": (mesh, [-1, LANDMARKS, 3]), "presence": (presence, [-1, 1])}
    for name, (tensor, shape) in shapes.items():
        writer.node("Reshape", [tensor, writer.constant(np.array(shape, np.int64))], name)
    crops = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", ROI_SIZE, ROI_SIZE, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape[1:]]) for name, (_, shape) in shapes.items()
    ]
    return _serialised(writer.model("face_landmarker", [crops], outputs))


def _member(task: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(task)) as bundle:
        return bundle.read(name)


def _swap_first_layer_channels(graph: onnx.GraphProto, source: str) -> None:
    first = next(node for node in graph.node if source in node.input)
    weights = next(tensor for tensor in graph.initializer if tensor.name == first.input[1])
    swapped = np.ascontiguousarray(numpy_helper.to_array(weights)[:, ::-1])
    weights.CopyFrom(numpy_helper.from_array(swapped, weights.name))


def _free_batch_of_reshapes(graph: onnx.GraphProto) -> None:
    """Turn a fixed batch of 1 in every Reshape into 0, which copies the batch of its input."""
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in shapes:
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def _serialised(model: onnx.ModelProto) -> bytes:
    model.producer_name = model.producer_version = model.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
