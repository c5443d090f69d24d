"""The served graph: prepared samples in, calibrated log-odds out, everything between inside."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training.audio.features import SHORTEST, FineStructure
from training.audio.heads import CLIP
from training.audio.mixture import Mixture
from training.graphs import forget_traces

OPSET = 20
LONGEST = 96_000
CONFIG = """name: "spoof_classifier"
backend: "onnxruntime"
version_policy { all { } }
max_batch_size: 16
input [ { name: "samples" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "logit" data_type: TYPE_FP32 dims: [ 1 ] } ]
dynamic_batching { max_queue_delay_microseconds: 500 }
instance_group [ { count: 1 } ]
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
"""


class MixtureGraph(nn.Module):
    """Gate, experts and calibrations as constants of the graph: features [N, F] to log-odds [N, 1]."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        experts = list(zip(mixture.heads, mixture.calibrations, strict=True))
        scalers = [head.scaler for head in mixture.heads]
        weights = [head.weight * calibration.slope for head, calibration in experts]
        biases = [head.bias * calibration.slope + calibration.offset for head, calibration in experts]
        self._constant("gate_mean", mixture.gate.scaler.mean)
        self._constant("gate_deviation", mixture.gate.scaler.deviation)
        self._constant("gate_weight", mixture.gate.weight)
        self._constant("gate_bias", mixture.gate.bias)
        self._constant("mean", np.stack([scaler.mean for scaler in scalers]))
        self._constant("deviation", np.stack([scaler.deviation for scaler in scalers]))
        self._constant("weight", np.stack(weights))
        self._constant("bias", np.array(biases))

    def _constant(self, name: str, values: npt.NDArray[np.floating]) -> None:
        self.register_buffer(name, torch.from_numpy(np.asarray(values, np.float32)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """See the class."""
        heard = torch.clamp((features - self.gate_mean) / self.gate_deviation, -CLIP, CLIP)
        shares = torch.softmax(heard @ self.gate_weight + self.gate_bias, 1)
        standard = torch.clamp((features[:, None] - self.mean) / self.deviation, -CLIP, CLIP)
        logits = (standard * self.weight).sum(2) + self.bias
        return (shares * logits).sum(1, keepdim=True)


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
    batch, time = torch.export.Dim("batch", min=1, max=1024), torch.export.Dim("time", min=SHORTEST, max=LONGEST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
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
    forget_traces(file)
    (folder / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    return file
