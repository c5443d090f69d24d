"""Writes the synchrony model for serving: graph, configuration, card."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from services.fusion.synchrony import SYNC_MODEL
from training.sync.data import SEGMENT, TalkingClip
from training.sync.evaluation import Calibration
from training.sync.network import LAGS, ServedSync, SyncNetwork

OPSET = 17


def served(network: SyncNetwork, calibration: Calibration) -> ServedSync:
    """The module that is exported, in evaluation mode."""
    return ServedSync(network, calibration.clip, calibration.window).eval()


def write_model(module: ServedSync, example: TalkingClip, repository: Path) -> Path:
    """Write ``sync/config.pbtxt`` and ``sync/1/model.onnx``.

    Args:
        module: what is served.
        example: a clip of at least SEGMENT slots, for its widths.
        repository: the model repository.

    Returns:
        Path of the graph.
    """
    folder = repository / SYNC_MODEL
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    motion_width, voice_width = example.motion.shape[1], example.voice.shape[1]
    inputs = (torch.zeros(2, SEGMENT + 9, motion_width), torch.zeros(2, SEGMENT + 9, voice_width))
    sequence = {0: "n", 1: "slots"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The tracing exporter turns shapes into graph nodes, which leaves the number of slots free.
        torch.onnx.export(
            module,
            inputs,
            str(path),
            input_names=["motion", "voice"],
            output_names=["logit", "curve", "window_logit"],
            dynamic_axes={
                "motion": sequence,
                "voice": sequence,
                "logit": {0: "n"},
                "curve": {0: "n"},
                "window_logit": {0: "n", 1: "windows"},
            },
            opset_version=OPSET,
            dynamo=False,
        )
    (folder / "config.pbtxt").write_text(_config(motion_width, voice_width), encoding="utf-8")
    return path


def _config(motion_width: int, voice_width: int) -> str:
    return f"""name: "{SYNC_MODEL}"
backend: "onnxruntime"
version_policy {{ all {{ }} }}
max_batch_size: 8
input [
  {{ name: "motion" data_type: TYPE_FP32 dims: [ -1, {motion_width} ] }},
  {{ name: "voice" data_type: TYPE_FP32 dims: [ -1, {voice_width} ] }}
]
output [
  {{ name: "logit" data_type: TYPE_FP32 dims: [ 1 ] }},
  {{ name: "curve" data_type: TYPE_FP32 dims: [ {LAGS} ] }},
  {{ name: "window_logit" data_type: TYPE_FP32 dims: [ -1 ] }}
]
dynamic_batching {{ max_queue_delay_microseconds: 500 }}
instance_group [ {{ count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""
