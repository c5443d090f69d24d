"""What the two networks over face crops share: held-out sets, figures on them, export and parity."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from services.visual.crops import FACE_CROP_SIZE
from training.calibration import cross_fitted
from training.data import zip_set
from training.frame.faces import FaceSet, load_faces
from training.frame.selection import held_out_rows
from training.graphs import forget_traces
from training.metrics import Measure, measure

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = ROOT / "model_repository"
CACHE = ROOT / ".cache" / "frame"
LARGEST_BATCH = 32
PARITY_TOLERANCE = 1e-4
FEWEST_GROUPS = 8
INPUTS = {"crops": f"UINT8 [n, {FACE_CROP_SIZE}, {FACE_CROP_SIZE}, 3] RGB, cut by services/visual/crops.py"}
LICENCE = "ours to give, but trained on DFDC and other research data: research use"


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one set that no network over crops was trained on."""

    name: str
    faces: FaceSet
    rows: npt.NDArray[np.int64]


def faces_of(name: str) -> FaceSet:
    """One still set with its boxes and meshes, from the cache when it was read before."""
    return load_faces(zip_set(name), REPOSITORY, CACHE / "faces")


def held_out_parts(mixed: FaceSet) -> tuple[Part, ...]:
    """The parts that figures are measured on: other DFDC groups, unseen sources with their methods, MesoNet."""
    swaps, mesonet = faces_of("dfdc_faces_val"), faces_of("mesonet_faces_train")
    return (
        Part("dfdc_faces_val", swaps, np.arange(len(swaps.examples))),
        Part("unseen_sources", mixed, held_out_rows(mixed.examples)),
        Part("mesonet_faces_train", mesonet, np.arange(len(mesonet.examples))),
    )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out rows side by side: raw logits, labels (1 = fake), part and group of each."""

    logits: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    parts: tuple[str, ...]
    groups: tuple[str, ...]

    @classmethod
    def of(cls, parts: Sequence[Part], logits: Sequence[npt.NDArray[np.float64]]) -> HeldOut:
        """Join the parts; ``logits`` has one array for each."""
        return cls(
            np.concatenate(logits),
            np.concatenate([part.faces.labels[part.rows] for part in parts]),
            tuple(part.name for part in parts for _ in part.rows),
            tuple(f"{part.name}:{part.faces.groups[row]}" for part in parts for row in part.rows),
        )

    def metrics(self) -> dict[str, dict[str, Measure]]:
        """Figures of each part and of ``all``; calibration is cross-fitted by group, so it flatters nobody."""
        probabilities = cross_fitted(self.logits, self.labels, self.parts, self.groups)
        figures = {"all": measure(self.labels, probabilities, self.groups)}
        for name in dict.fromkeys(self.parts):
            rows = np.array([part == name for part in self.parts])
            groups = [group for group, chosen in zip(self.groups, rows, strict=True) if chosen]
            figures[name] = measure(self.labels[rows], probabilities[rows], drawn(groups))
        return figures


def drawn(groups: Sequence[str]) -> list[str]:
    """What a bootstrap draws: groups, or single rows where there are too few groups to say anything."""
    return list(groups) if len(set(groups)) >= FEWEST_GROUPS else [str(row) for row in range(len(groups))]


def headline(metrics: dict[str, dict[str, Measure]]) -> str:
    """The AUC of single crops on every part, in one line."""
    return "AUC of single crops: " + "; ".join(
        f"{name} {figures['auc']}" for name, figures in metrics.items() if name != "all"
    )


def export(model: nn.Module, name: str, outputs: dict[str, str]) -> Path:
    """Write ``model_repository/<name>/1/model.onnx`` with its configuration, and check it against torch.

    Args:
        model: takes uint8 crops [n, 224, 224, 3], answers the outputs in order.
        name: directory in the model repository.
        outputs: name → dimensions without the batch, as Triton's configuration writes them.

    Returns:
        The file.

    Raises:
        ValueError: ONNX Runtime and torch differ by more than 1e-4 on 16 crops.
    """
    path = REPOSITORY / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    crops = torch.from_numpy(_parity_crops())
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        torch.onnx.export(
            model.eval(),
            (crops[:2],),
            path,
            input_names=["crops"],
            output_names=list(outputs),
            dynamic_shapes=({0: batch},),
            opset_version=18,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    forget_traces(path)
    (REPOSITORY / name / "config.pbtxt").write_text(_configuration(name, outputs), encoding="utf-8")
    gap = parity_gap(model, path)
    if gap > PARITY_TOLERANCE:
        raise ValueError(f"{name}: ONNX Runtime differs from torch by {gap:.1e}")
    return path


def parity_gap(model: nn.Module, path: Path) -> float:
    """Largest difference between torch and ONNX Runtime over all outputs on 16 random crops."""
    crops = _parity_crops()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    served = session.run(None, {"crops": crops})
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(crops))
    return max(float(np.abs(one - other.numpy()).max()) for one, other in zip(served, expected, strict=True))


def _parity_crops() -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (16, 14, 14, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def _configuration(name: str, outputs: dict[str, str]) -> str:
    blocks = ",\n".join(
        f'  {{ name: "{output}" data_type: TYPE_FP32 dims: [ {dims} ] }}' for output, dims in outputs.items()
    )
    return f"""name: "{name}"
backend: "onnxruntime"
version_policy {{ all {{ }} }}
max_batch_size: {LARGEST_BATCH}
input [
  {{ name: "crops" data_type: TYPE_UINT8 dims: [ {FACE_CROP_SIZE}, {FACE_CROP_SIZE}, 3 ] }}
]
output [
{blocks}
]
dynamic_batching {{ max_queue_delay_microseconds: 500 }}
instance_group [ {{ count: 1 }} ]
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""
