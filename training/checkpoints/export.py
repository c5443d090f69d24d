"""From a filled network to a served graph: uint8 crops or samples in, log-odds of fake out, checked against torch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from services.visual.crops import FACE_CROP_SIZE
from training.checkpoints.catalogue import Architecture, Modality
from training.checkpoints.weights import CheckpointError

OPSET = 17
PARITY_INPUTS = 16
PARITY_TOLERANCE = 1e-4
MAX_BATCH_SIZE = 16
SHORTEST_SAMPLES, LONGEST_SAMPLES = 16_000, 96_000


def _log_odds(answer: Tensor, fake_class: int) -> Tensor:
    """Log-odds of fake [N, 1] from one number or two."""
    if answer.shape[1] == 1:
        return answer if fake_class == 1 else -answer
    return answer[:, fake_class : fake_class + 1] - answer[:, 1 - fake_class : 2 - fake_class]


class FaceGraph(nn.Module):
    """Crops uint8 [N, 224, 224, 3] RGB → ``logit`` [N, 1]; scaling and normalisation are inside."""

    def __init__(self, network: nn.Module, architecture: Architecture, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.fake_class = architecture.fake_class
        mean, deviation = architecture.normalisation
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, 3, 1, 1) * 255)
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, crops: Tensor) -> Tensor:
        """See the class."""
        pixels = crops.permute(0, 3, 1, 2).to(torch.float32)
        if self.size != FACE_CROP_SIZE:
            pixels = functional.interpolate(pixels, (self.size, self.size), mode="bilinear", align_corners=False)
        return _log_odds(self.network((pixels - self.mean) / self.deviation), self.fake_class)


class SpeechGraph(nn.Module):
    """Samples float32 [N, T] at 16 kHz → ``logit`` [N, 1].

    Shorter sound is repeated up to the length that the network hears, longer sound is cut, as the published
    training code does.
    """

    def __init__(self, network: nn.Module, architecture: Architecture, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.fake_class = architecture.fake_class

    def forward(self, samples: Tensor) -> Tensor:
        """See the class."""
        index = torch.arange(self.size, device=samples.device) % samples.shape[1]
        return _log_odds(self.network(samples[:, index]), self.fake_class)


def served_graph(network: nn.Module, architecture: Architecture, size: int) -> nn.Module:
    """The network with everything around it that serving needs."""
    kind = FaceGraph if architecture.modality is Modality.FACE else SpeechGraph
    return kind(network, architecture, size).eval()


def input_name(architecture: Architecture) -> str:
    """Name of the graph's input."""
    return "crops" if architecture.modality is Modality.FACE else "samples"


def example(architecture: Architecture, count: int, seed: int = 0) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Random inputs of the graph; samples of a batch are equally long."""
    random = np.random.default_rng(seed)
    if architecture.modality is Modality.FACE:
        return random.integers(0, 256, (count, FACE_CROP_SIZE, FACE_CROP_SIZE, 3), dtype=np.uint8)
    length = int(random.integers(SHORTEST_SAMPLES, LONGEST_SAMPLES))
    return (0.05 * random.standard_normal((count, length))).astype(np.float32)


def write_graph(graph: nn.Module, architecture: Architecture, path: Path) -> None:
    """Export to ONNX with a dynamic batch, and for sound a dynamic length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = input_name(architecture)
    axes = {0: "batch"} if architecture.modality is Modality.FACE else {0: "batch", 1: "time"}
    with warnings.catch_warnings():
        # The exporter that follows the traced graph keeps data-dependent indexing as it is; torch warns that
        # a newer one exists, and about every shape that it reads as a constant.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (torch.from_numpy(example(architecture, 2)),),
            str(path),
            input_names=[name],
            output_names=["logit"],
            dynamic_axes={name: axes, "logit": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def parity(graph: nn.Module, architecture: Architecture, path: Path) -> float:
    """Largest difference between torch and the exported graph on 16 inputs.

    Raises:
        CheckpointError: it is more than 1e-4, relative to logits larger than 1.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed in range(PARITY_INPUTS):
        # Batches of one and lengths of their own, so that nothing of the example stays in the graph.
        inputs = example(architecture, 1, seed + 1)
        with torch.inference_mode():
            expected = graph(torch.from_numpy(inputs)).numpy()
        answer = session.run(["logit"], {input_name(architecture): inputs})[0]
        worst = max(worst, float(np.max(np.abs(answer - expected) / np.maximum(np.abs(expected), 1.0))))
    if not worst <= PARITY_TOLERANCE:
        raise CheckpointError(f"the exported graph differs from torch by {worst:.2g}: it was not installed")
    return worst


def configuration(name: str, architecture: Architecture) -> str:
    """Triton's configuration of the model."""
    face = architecture.modality is Modality.FACE
    kind, dims = ("TYPE_UINT8", f"{FACE_CROP_SIZE}, {FACE_CROP_SIZE}, 3") if face else ("TYPE_FP32", "-1")
    return (
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        "version_policy { all { } }\n"
        f"max_batch_size: {MAX_BATCH_SIZE}\n"
        f'input [ {{ name: "{input_name(architecture)}" data_type: {kind} dims: [ {dims} ] }} ]\n'
        'output [ { name: "logit" data_type: TYPE_FP32 dims: [ 1 ] } ]\n'
        "dynamic_batching { max_queue_delay_microseconds: 500 }\n"
        "instance_group [ { count: 1 } ]\n"
        'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }\n'
    )
