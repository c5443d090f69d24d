"""Real models on a public-domain portrait; classifiers that judge colour, so that a test knows the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from skimage import data

from services.common.errors import BonafideError
from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.common.telemetry import Telemetry
from services.visual import residuals
from services.visual.detection import Faces, Picture, detect_now
from services.visual.expression import CHANNELS
from services.visual.pipeline import VisualPipeline
from services.visual.settings import VisualSettings

MODELS = Path(__file__).parents[2] / "model_repository"
FACE_MODELS = ("face_detector", "face_landmarker")
TRAINED_MODELS = ("patch_gate", "frame_classifier", "temporal")
REDNESS = 8.0
"""Logit of a crop that is pure red and of none that is grey."""


@pytest.fixture(scope="session")
def repository() -> ModelRepository:
    found = ModelRepository(MODELS)
    try:
        found.verify_all(FACE_MODELS)
    except BonafideError as error:
        pytest.skip(f"run `make models` first: {error}")
    return found


@pytest.fixture(scope="session")
def engine(repository: ModelRepository) -> EmbeddedEngine:
    return EmbeddedEngine(repository)


@pytest.fixture(scope="session")
def portrait() -> Picture:
    picture: Picture = data.astronaut()
    return picture


@pytest.fixture(scope="session")
def portrait_faces(engine: EmbeddedEngine, portrait: Picture) -> Faces:
    return detect_now(engine.run, [portrait])[0]


@pytest.fixture(scope="session")
def colour_judges(repository: ModelRepository, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the real face models and with classifiers whose logit is the redness of the crop."""
    root = tmp_path_factory.mktemp("models")
    link_models(repository.root, root)
    add_model(root, "patch_gate", redness_graph("patch_logits"))
    add_model(root, "frame_classifier", redness_graph("embedding"))
    return root


@pytest.fixture
def pipeline(colour_judges: Path) -> VisualPipeline:
    return make_pipeline(colour_judges)


def make_pipeline(root: Path, telemetry: Telemetry | None = None, **changes: object) -> VisualPipeline:
    settings = VisualSettings(model_repository=root, **changes)  # type: ignore[arg-type]
    return VisualPipeline(EmbeddedEngine(ModelRepository(root)), settings, telemetry)


def link_models(source: Path, target: Path) -> None:
    for folder in source.iterdir():
        if folder.is_dir() and folder.name not in TRAINED_MODELS:
            (target / folder.name).symlink_to(folder)


def add_model(root: Path, name: str, graph: bytes, **card: object) -> None:
    file = root / name / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(graph)
    facts = {"version": "1", "trained_on": "nothing: a rule", "headline": "exact", "licence": "Apache-2.0"}
    (root / name / "card.json").write_text(json.dumps(facts | {"sha256": sha256(graph).hexdigest()} | card))


def redness_graph(second: str) -> bytes:
    """crops uint8 [n, 224, 224, 3] → logit [n, 1] = REDNESS · (red − blue), and patch_logits or embedding."""
    weights = numpy_helper.from_array(np.array([[REDNESS], [0], [-REDNESS]], np.float32) / 255, "weights")
    axes = numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
    shape = numpy_helper.from_array(np.array([-1, 1, 3], np.int64), "shape")
    nodes = [
        helper.make_node("Cast", ["crops"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logit"]),
        *(
            [helper.make_node("Reshape", ["means", "shape"], [second])]
            if second == "patch_logits"
            else [helper.make_node("Identity", ["means"], [second])]
        ),
    ]
    second_shape: Sequence[str | int] = ["n", 1, 3] if second == "patch_logits" else ["n", 3]
    return _graph(
        nodes,
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["n", 224, 224, 3])],
        [
            helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1]),
            helper.make_tensor_value_info(second, TensorProto.FLOAT, second_shape),
        ],
        [weights, axes, shape],
    )


def sequence_graph() -> bytes:
    """texture [n, rows, 123] and motion [n, frames, 17] → logit [n, 1] = both means together."""
    axes = numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
    shape = numpy_helper.from_array(np.array([-1, 1], np.int64), "shape")
    widths = {"texture": residuals.WIDTH, "motion": len(CHANNELS)}
    nodes = [
        *(helper.make_node("ReduceMean", [name, "axes"], [f"{name}_mean"], keepdims=0) for name in widths),
        helper.make_node("Add", ["texture_mean", "motion_mean"], ["sum"]),
        helper.make_node("Reshape", ["sum", "shape"], ["logit"]),
    ]
    return _graph(
        nodes,
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", f"{name}_rows", width])
            for name, width in widths.items()
        ],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])],
        [axes, shape],
    )


def _graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> bytes:
    graph = helper.make_graph(nodes, "rule", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())
