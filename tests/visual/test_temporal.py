"""Which embeddings the temporal network reads, and that the pipeline brings them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.local.portrait import render_portrait
from services.common.evidence import Branch, Outcome
from services.common.media import Frame
from services.common.models import ModelCard, ModelRepository
from services.visual.expression import CHANNELS
from services.visual.residuals import WIDTH
from services.visual.temporal import EMBEDDINGS_OF, FEWEST_CROPS, embedding_rows
from tests.visual.conftest import add_model, link_models, make_pipeline, redness_graph


def card(sha256: str, **details: object) -> ModelCard:
    return ModelCard("a model", "1", sha256, "a rule", "exact", "Apache-2.0", details)


BOUND = card("own", **{EMBEDDINGS_OF: {"sha256": "frame", "width": 7}})
ROWS = np.arange(FEWEST_CROPS * 7, dtype=np.float32).reshape(FEWEST_CROPS, 7)


def embedding_graph() -> bytes:
    """texture, motion and embeddings [n, crops, 3] → logit [n, 1] = the embeddings' mean, NaN counting as 0."""
    nodes = [
        helper.make_node("IsNaN", ["embeddings"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "embeddings"], ["known"]),
        helper.make_node("ReduceMean", ["known", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["logit"]),
    ]
    widths = {"texture": WIDTH, "motion": len(CHANNELS), "embeddings": 3}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", f"{name}_rows", width])
        for name, width in widths.items()
    ]
    constants = [
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(np.array([-1, 1], np.int64), "shape"),
    ]
    outputs = [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])]
    graph = helper.make_graph(nodes, "rule", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_a_network_reads_the_embeddings_that_it_was_fitted_on() -> None:
    rows = embedding_rows(BOUND, card("frame"), ROWS)
    assert rows is ROWS


@pytest.mark.parametrize(
    ("frame", "embeddings"),
    [(card("another"), ROWS), (None, ROWS), (card("frame"), None), (card("frame"), ROWS[: FEWEST_CROPS - 1])],
    ids=["another frame classifier", "no frame classifier", "no crop", "few crops"],
)
def test_others_are_left_out(frame: ModelCard | None, embeddings: np.ndarray | None) -> None:
    rows = embedding_rows(BOUND, frame, embeddings)
    assert rows is not None
    assert rows.shape == (FEWEST_CROPS, 7)
    assert np.isnan(rows).all()


def test_a_network_without_them_is_given_none() -> None:
    assert embedding_rows(card("own"), card("frame"), ROWS) is None


@pytest.mark.parametrize(("fitted_on_it", "branches"), [(True, 2), (False, 2), (True, 1)])
async def test_the_pipeline_brings_the_embeddings_of_the_face(
    colour_judges: Path, tmp_path: Path, *, fitted_on_it: bool, branches: int
) -> None:
    link_models(colour_judges, tmp_path)
    add_model(tmp_path, "frame_classifier", redness_graph("embedding"))
    sha256 = ModelRepository(tmp_path).card("frame_classifier").sha256 if fitted_on_it else "another"
    add_model(tmp_path, "temporal", embedding_graph(), **{EMBEDDINGS_OF: {"sha256": sha256, "width": 3}})
    dense = [Frame(index * 40_000, picture) for index, picture in enumerate(render_portrait(2, 25, seed=1))]
    wanted = frozenset([Branch.TEMPORAL, Branch.FRAME][:branches])
    evidence = await make_pipeline(tmp_path).analyze(dense[::10], dense, wanted, timeout=100)
    report = next(report for report in evidence.reports if report.branch is Branch.TEMPORAL)
    assert report.outcome is Outcome.SCORED
    # The rule answers 0.5 to NaN and otherwise the mean of the colours, far above it.
    assert report.score is not None
    assert (report.score > 0.9) == (fitted_on_it and branches == 2)
    assert report.score >= 0.5
