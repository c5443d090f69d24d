"""The three third-party face networks, reshaped into the graphs that the model repository serves.

All take what a service already has, in batches of any size: uint8 RGB pictures, or landmarks in pixels.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.local.tflite_graph import GraphWriter, TFLiteGraph

LANDMARKS = 478
BLENDSHAPES = 52
ROI_SIZE = 256

BLENDSHAPE_LANDMARKS = (
    *(0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67),
    *(70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146),
    *(148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181),
    *(185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293),
    *(295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361),
    *(362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398),
    *(400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477),
)
"""Points of the mesh that the blendshape network reads, as documented for MediaPipe's face landmarker."""


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
    mesh, presence, *_ = TFLiteGraph(_member(task, "face_landmarks_detector.tflite"), writer, spatial=True).convert(
        scaled
    )
    shapes = {"landmarks": (mesh, [-1, LANDMARKS, 3]), "presence": (presence, [-1, 1])}
    for name, (tensor, shape) in shapes.items():
        writer.node("Reshape", [tensor, writer.constant(np.array(shape, np.int64))], name)
    crops = helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", ROI_SIZE, ROI_SIZE, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape[1:]]) for name, (_, shape) in shapes.items()
    ]
    return _serialised(writer.model("face_landmarker", [crops], outputs))


def face_blendshapes(task: bytes) -> bytes:
    """The 52 expression weights of a Face Landmarker bundle.

    Args:
        task: the ``.task`` bundle, a zip of TensorFlow Lite flatbuffers.

    Returns:
        ONNX with input ``landmarks`` (pixels at any scale) and output ``blendshapes``, each in [0, 1].
    """
    writer = GraphWriter()
    subset = writer.constant(np.array(BLENDSHAPE_LANDMARKS, np.int64))
    points = writer.node("Gather", ["landmarks", subset], axis=1)
    bounds = [writer.constant(np.array([value], np.int64)) for value in (0, 2, 2)]
    plane = writer.node("Slice", [points, *bounds])
    (weights,) = TFLiteGraph(_member(task, "face_blendshapes.tflite"), writer, spatial=False).convert(plane)
    writer.node("Identity", [weights], "blendshapes")
    landmarks = helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["n", LANDMARKS, 3])
    output = helper.make_tensor_value_info("blendshapes", TensorProto.FLOAT, ["n", BLENDSHAPES])
    return _serialised(writer.model("face_blendshapes", [landmarks], [output]))


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
