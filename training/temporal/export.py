"""The served graph: rows of texture and motion in, calibrated log-odds out, every statistic inside."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from services.visual.expression import CHANNELS
from services.visual.residuals import WIDTH
from training.temporal.corpus import ClipRows
from training.temporal.evaluation import SHRINKAGE, Blend, spread
from training.temporal.fitting import Member
from training.temporal.network import EmbeddingNet, TemporalNetwork

NAME = "temporal"
OPSET = 17


def triton_config(embedding_width: int) -> str:
    """``config.pbtxt`` of the model."""
    return f"""name: "{NAME}"
backend: "onnxruntime"
version_policy {{ all {{ }} }}
max_batch_size: 16
input [
  {{ name: "texture" data_type: TYPE_FP32 dims: [ -1, {WIDTH} ] }},
  {{ name: "motion" data_type: TYPE_FP32 dims: [ -1, {len(CHANNELS)} ] }},
  {{ name: "embeddings" data_type: TYPE_FP32 dims: [ -1, {embedding_width} ] }}
]
output [ {{ name: "logit" data_type: TYPE_FP32 dims: [ 1 ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: 500 }}
instance_group [ {{ count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""


def build(members: Sequence[Member], clips: Sequence[ClipRows], blend: Blend) -> TemporalNetwork:
    """One network of all members that the blend gives weight, scaled as they were when it was fitted."""
    kinds = [member.kind for member in members]
    texture: list[tuple[torch.nn.Module, float]] = []
    motion: list[tuple[torch.nn.Module, float]] = []
    embeddings: list[tuple[EmbeddingNet, float]] = []
    for member, kind in zip(members, kinds, strict=True):
        weight = blend.weights.get(kind, 0.0)
        if weight:
            scale = SHRINKAGE * blend.line.scale * weight / (kinds.count(kind) * spread(member, clips))
            if isinstance(member.model, EmbeddingNet):
                embeddings.append((member.model, scale))
            else:
                (texture if kind.reads_texture else motion).append((member.model, scale))
    return TemporalNetwork(texture, motion, embeddings, SHRINKAGE * blend.line.bias).eval()


def export(network: TemporalNetwork, repository: Path) -> Path:
    """Write ``config.pbtxt`` and ``1/model.onnx``; answers the model file's path."""
    folder = repository / NAME
    file = folder / "1" / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    examples = (
        torch.randn(2, 40, WIDTH),
        torch.randn(2, 90, len(CHANNELS)),
        torch.randn(2, 16, network.embedding_width),
    )
    with warnings.catch_warnings():
        # The newer exporter unrolls recurrent layers over the example's length; this one warns of its age and
        # of shapes that recurrent layers check. That any batch and length give the same is tested.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            examples,
            str(file),
            dynamo=False,
            input_names=["texture", "motion", "embeddings"],
            output_names=["logit"],
            dynamic_axes={
                "texture": {0: "batch", 1: "rows"},
                "motion": {0: "batch", 1: "frames"},
                "embeddings": {0: "batch", 1: "crops"},
                "logit": {0: "batch"},
            },
            opset_version=OPSET,
        )
    (folder / "config.pbtxt").write_text(triton_config(network.embedding_width), encoding="utf-8")
    return file
