"""A model repository of tiny graphs under the real names, so that a real Triton answers thousands of clips fast.

Each graph takes and gives what its served counterpart does and is a plain function of its input: another clip
gives another score, the same clip always the same. The "face" that the detector finds is a block of pure red.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.common.models import ModelRepository
from services.fusion.heads import MANIFEST
from services.visual.temporal import EMBEDDINGS_OF

STAND_IN = "nothing: a stand-in for campaigns, made by benchmarks/reliability/tiny_models.py"
FACE_SIDE_CELLS = 4
"""Side of the face that the detector reports, cells of 32 pixels."""
REDNESS = 60.0
"""How far red must be above the other colours, on average over a cell of 32 pixels, to be a face."""
SYNC_WINDOW, SYNC_HOP, SYNC_LAGS = 50, 25, 31
LANDMARKS = 478
EMBEDDING = 1280


class GraphBuilder:
    """Collects the nodes of one graph; every method answers the name of what it made."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def take(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Declare an input; answers it as floats with NaN read as 0."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        if kind != TensorProto.FLOAT:
            return self.node("Cast", [name], to=TensorProto.FLOAT)
        return self.node("Where", [self.node("IsNaN", [name]), self.constant(0.0), name])

    def give(self, name: str, source: str, shape: Sequence[int | str]) -> None:
        """Declare an output."""
        self._nodes.append(helper.make_node("Identity", [source], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:  # noqa: ANN401 - the operator decides
        """Add a node of one output."""
        made = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [made], **attributes))
        return made

    def constant(self, value: npt.ArrayLike, kind: type[np.generic] = np.float32) -> str:
        """Add a constant."""
        made = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, kind), made))
        return made

    def integers(self, *values: int) -> str:
        """Add a constant list of integers."""
        return self.constant(values, np.int64)

    def mean(self, source: str, axes: Sequence[int]) -> str:
        """Mean over axes, which are dropped."""
        return self.node("ReduceMean", [source, self.integers(*axes)], keepdims=0)

    def scaled(self, source: str, factor: npt.ArrayLike, offset: npt.ArrayLike) -> str:
        """``source · factor + offset``, broadcast."""
        product = self.node("Mul", [source, self.constant(factor)])
        return self.node("Add", [product, self.constant(offset)])

    def model(self) -> onnx.ModelProto:
        """The finished graph."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def face_detector(graph: GraphBuilder) -> None:
    """A face wherever a cell of 32 pixels is red; the finer grids find nothing."""
    pixels = graph.take("frames", TensorProto.UINT8, ["n", "h", "w", 3])
    planes = graph.node("Transpose", [pixels], perm=[0, 3, 1, 2])
    cells = graph.node("AveragePool", [planes], kernel_shape=[32, 32], strides=[32, 32])
    weights = graph.constant(np.array([1.0, -0.5, -0.5], np.float32).reshape(1, 3, 1, 1))
    red = graph.node("Conv", [cells, weights])
    found = graph.node("Sigmoid", [graph.scaled(red, 0.5, -0.5 * REDNESS)])
    column = graph.integers(0, -1, 1)
    grids = [graph.node("Reshape", [_nothing(graph, planes, stride), column]) for stride in (8, 16)]
    scores = graph.node("Concat", [*grids, graph.node("Reshape", [found, column])], axis=1)
    graph.give("cls", scores, ["n", "p", 1])
    graph.give("obj", scores, ["n", "p", 1])
    box = [0.5, 0.5, math.log(FACE_SIDE_CELLS), math.log(FACE_SIDE_CELLS)]
    points = [-0.3, -0.2, 1.3, -0.2, 0.5, 0.5, -0.1, 1.2, 1.1, 1.2]
    graph.give("bbox", graph.scaled(scores, np.zeros((1, 1, 4)), box), ["n", "p", 4])
    graph.give("kps", graph.scaled(scores, np.zeros((1, 1, 10)), points), ["n", "p", 10])


def _nothing(graph: GraphBuilder, planes: str, stride: int) -> str:
    """A score of 0 for every cell of a grid."""
    starts, ends = graph.integers(0, 0, 0), graph.integers(1, 1 << 30, 1 << 30)
    cells = graph.node("Slice", [planes, starts, ends, graph.integers(1, 2, 3), graph.integers(1, stride, stride)])
    return graph.node("Mul", [cells, graph.constant(0.0)])


def face_landmarker(graph: GraphBuilder) -> None:
    """A fixed mesh that sways with the brightness of the crop."""
    crops = graph.take("crops", TensorProto.UINT8, ["n", 256, 256, 3])
    brightness = graph.node("Reshape", [graph.mean(crops, (1, 2, 3)), graph.integers(-1, 1, 1)])
    turns = np.arange(LANDMARKS) * math.pi * (3 - math.sqrt(5))  # a sunflower: even over the disc
    radius = 95 * np.sqrt((np.arange(LANDMARKS) + 0.5) / LANDMARKS)
    mesh = np.stack([128 + radius * np.cos(turns), 128 + radius * np.sin(turns), 0 * turns], axis=1)
    sway = 0.1 * np.stack([np.cos(3 * turns), np.sin(2 * turns), 0 * turns], axis=1)
    graph.give("landmarks", graph.scaled(brightness, sway[None], mesh[None]), ["n", LANDMARKS, 3])
    presence = graph.scaled(graph.mean(crops, (1, 2)), np.zeros((1, 3)), 9.0)
    graph.give("presence", graph.node("ReduceMean", [presence, graph.integers(1)], keepdims=1), ["n", 1])


def frame_classifier(graph: GraphBuilder) -> None:
    """Brighter crops are more suspicious."""
    level = _crop_level(graph)
    graph.give("logit", graph.scaled(level, 1.5, -135.0), ["n", 1])
    graph.give("embedding", graph.scaled(level, np.linspace(-1, 1, EMBEDDING)[None], 0.0), ["n", EMBEDDING])
    square = graph.node("Reshape", [level, graph.integers(-1, 1, 1)])
    graph.give("activation_map", graph.scaled(square, np.eye(6)[None], 0.0), ["n", 6, 6])


def patch_gate(graph: GraphBuilder) -> None:
    """Brighter crops are more suspicious, less steeply."""
    level = _crop_level(graph)
    graph.give("logit", graph.scaled(level, 0.8, -72.0), ["n", 1])
    square = graph.node("Reshape", [level, graph.integers(-1, 1, 1)])
    graph.give("patch_logits", graph.scaled(square, np.eye(4)[None], 0.0), ["n", 4, 4])


def _crop_level(graph: GraphBuilder) -> str:
    crops = graph.take("crops", TensorProto.UINT8, ["n", 224, 224, 3])
    return graph.node("Reshape", [graph.mean(crops, (1, 2, 3)), graph.integers(-1, 1)])


def spoof_classifier(graph: GraphBuilder) -> None:
    """The mean magnitude of the samples."""
    samples = graph.take("samples", TensorProto.FLOAT, ["n", "t"])
    level = graph.node("ReduceMean", [graph.node("Abs", [samples]), graph.integers(1)], keepdims=1)
    graph.give("logit", graph.scaled(level, 400.0, -4.0), ["n", 1])


def temporal(graph: GraphBuilder) -> None:
    """The mean of all numbers, squashed; embeddings that nobody knows, NaN, count as 0."""
    texture = graph.take("texture", TensorProto.FLOAT, ["n", "rows", 123])
    motion = graph.take("motion", TensorProto.FLOAT, ["n", "frames", 17])
    embeddings = graph.take("embeddings", TensorProto.FLOAT, ["n", "crops", EMBEDDING])
    known = graph.node("Where", [graph.node("IsNaN", [embeddings]), graph.constant(0.0), embeddings])
    levels = [graph.node("Tanh", [graph.mean(values, (1, 2))]) for values in (texture, motion, known)]
    graph.give("logit", graph.node("Reshape", [graph.node("Sum", levels), graph.integers(-1, 1)]), ["n", 1])


def sync(graph: GraphBuilder) -> None:
    """The mean of lips and voice, whole and by window."""
    motion = graph.take("motion", TensorProto.FLOAT, ["n", "slots", 80])
    voice = graph.take("voice", TensorProto.FLOAT, ["n", "slots", 160])
    rows = graph.node("Add", [graph.mean(motion, (2,)), graph.scaled(graph.mean(voice, (2,)), 0.1, 0.0)])
    whole = graph.node("Tanh", [graph.node("ReduceMean", [rows, graph.integers(1)], keepdims=1)])
    graph.give("logit", whole, ["n", 1])
    curve = np.exp(-0.5 * (np.arange(SYNC_LAGS) - SYNC_LAGS // 2) ** 2)
    graph.give("curve", graph.scaled(graph.node("Sigmoid", [whole]), curve[None], 0.0), ["n", SYNC_LAGS])
    line = graph.node("Reshape", [rows, graph.integers(0, 1, -1)])
    windows = graph.node("AveragePool", [line], kernel_shape=[SYNC_WINDOW], strides=[SYNC_HOP])
    graph.give("window_logit", graph.node("Reshape", [windows, graph.integers(0, -1)]), ["n", "windows"])


GRAPHS: tuple[Callable[[GraphBuilder], None], ...] = (
    face_detector,
    face_landmarker,
    frame_classifier,
    patch_gate,
    spoof_classifier,
    temporal,
    sync,
)


def write_repository(target: Path, served: Path) -> ModelRepository:
    """Write the tiny graphs, with the configuration of the served models and cards that match the new bytes.

    Args:
        target: directory to make; what it held is removed.
        served: the real model repository, whose ``config.pbtxt`` files are taken over.
    """
    shutil.rmtree(target, ignore_errors=True)
    hashes: dict[str, str] = {}
    for make in GRAPHS:
        name = make.__name__
        builder = GraphBuilder(name)
        make(builder)
        content = builder.model().SerializeToString()
        file = target / name / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        shutil.copy(served / name / "config.pbtxt", target / name)
        hashes[name] = hashlib.sha256(content).hexdigest()
        card: dict[str, Any] = {
            "name": name,
            "version": "1",
            "sha256": hashes[name],
            "trained_on": STAND_IN,
            "headline": "none: it judges nothing",
            "licence": "as this project",
        }
        if make is temporal:
            card[EMBEDDINGS_OF] = {"sha256": hashes[frame_classifier.__name__], "width": EMBEDDING}
        (target / name / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return ModelRepository(target)


def write_heads(target: Path, shipped: Path, repository: ModelRepository) -> Path:
    """Copy the fusion heads as if they had been fitted on the stand-ins: fusion refuses heads of other models.

    Args:
        target: directory to make; what it held is removed.
        shipped: the heads that come with the service.
        repository: the stand-ins.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(shipped, target)
    manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
    for name in manifest["files"]:
        content = json.loads((target / name).read_text(encoding="utf-8"))
        if "training" in content:
            content["training"]["models"] = repository.contents()
        encoded = json.dumps(content).encode()
        (target / name).write_bytes(encoded)
        manifest["files"][name] = hashlib.sha256(encoded).hexdigest()
    (target / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return target
