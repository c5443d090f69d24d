"""The served graph: prepared samples in, calibrated log-odds out, everything between inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.audio.features import FineStructure
from training.audio.heads import CLIP, Calibration, LinearHead

OPSET = 20
LONGEST_EXPORT = 10 * 96_000
CONFIG = """name: "spoof_classifier"
backend: "onnxruntime"
max_batch_size: 16
input [ { name: "samples" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "logit" data_type: TYPE_FP32 dims: [ 1 ] } ]
dynamic_batching { max_queue_delay_microseconds: 500 }
instance_group [ { count: 1 } ]
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
"""


class LinearGraph(nn.Module):
    """A linear head with its standardisation and calibration, as constants of the graph."""

    def __init__(self, head: LinearHead, calibration: Calibration) -> None:
        super().__init__()
        weight = head.weight * calibration.slope
        bias = head.bias * calibration.slope + calibration.offset
        self.register_buffer("mean", torch.from_numpy(head.mean.astype(np.float32)))
        self.register_buffer("deviation", torch.from_numpy(head.deviation.astype(np.float32)))
        self.register_buffer("weight", torch.from_numpy(weight.astype(np.float32))[:, None])
        self.register_buffer("bias", torch.tensor([bias], dtype=torch.float32))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, F] to calibrated log-odds [N, 1]."""
        standard = torch.clamp((features - self.mean) / self.deviation, -CLIP, CLIP)
        return standard @ self.weight + self.bias


class SpoofClassifier(nn.Module):
    """Prepared samples [N, T] to calibrated log-odds of synthetic speech [N, 1]."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.features = FineStructure()
        self.head = head

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.head(self.features(samples))


def export(model: nn.Module, repository: Path, name: str = "spoof_classifier") -> Path:
    """Write ``config.pbtxt`` and ``1/model.onnx`` of a model; answers the model file's path."""
    folder = repository / name
    file = folder / "1" / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    batch, time = torch.export.Dim("batch", min=1, max=1024), torch.export.Dim("time", min=1024, max=LONGEST_EXPORT)
    program = torch.onnx.export(
        model.eval(),
        (torch.zeros(2, 4 * 16_000),),
        dynamo=True,
        input_names=["samples"],
        output_names=["logit"],
        dynamic_shapes={"samples": {0: batch, 1: time}},
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None
    program.save(file, external_data=False)
    (folder / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    return file
