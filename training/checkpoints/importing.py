"""The story of one import: rebuild, load, export, compare, install, and load into a running Triton."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from training.cards import Card, file_sha256, write_card
from training.checkpoints.catalogue import ARCHITECTURES, Architecture, Modality, built
from training.checkpoints.export import PARITY_INPUTS, configuration, parity, served_graph, write_graph
from training.checkpoints.weights import CheckpointError
from training.metrics import Measure

NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
UNMEASURED = "not measured here: run make evaluate before trusting it"


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What the user gives. ``name`` is the model's directory; ``replace`` allows it to exist."""

    architecture: str
    checkpoint: Path
    licence: str
    repository: Path
    name: str = ""
    size: int | None = None
    fake_class: int | None = None
    gradient: str = "npr"
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What was installed: name in the repository, hash of the graph, largest difference from torch."""

    name: str
    sha256: str
    difference: float


def import_checkpoint(request: ImportRequest) -> Imported:
    """Bring a published checkpoint into the model repository.

    Raises:
        CheckpointError: the request or the checkpoint is wrong, or the exported graph differs from torch;
            nothing is installed then.
    """
    architecture, name = _checked(request)
    size = request.size or architecture.size
    network = built(architecture, request.checkpoint, request.gradient)
    graph = served_graph(network, architecture, size)
    with tempfile.TemporaryDirectory(dir=request.repository, prefix=".import-") as scratch:
        file = Path(scratch) / name / "1" / "model.onnx"
        write_graph(graph, architecture, file)
        difference = parity(graph, architecture, file)
        (file.parents[1] / "config.pbtxt").write_text(configuration(name, architecture), encoding="utf-8")
        parameters = sum(parameter.numel() for parameter in network.parameters())
        card = _card(request, architecture, name, (size, parameters, difference))
        write_card(card, Path(scratch))
        target = request.repository / name
        if target.exists():
            shutil.rmtree(target)
        (Path(scratch) / name).rename(target)
    return Imported(name, file_sha256(target / "1" / "model.onnx"), difference)


def _checked(request: ImportRequest) -> tuple[Architecture, str]:
    architecture = ARCHITECTURES.get(request.architecture)
    if architecture is None:
        raise CheckpointError(f"unknown architecture {request.architecture}; known are {', '.join(ARCHITECTURES)}")
    if not request.licence.strip():
        raise CheckpointError("the licence of the weights must be given")
    if not request.checkpoint.is_file():
        raise CheckpointError(f"{request.checkpoint} is no file")
    if not request.repository.is_dir():
        raise CheckpointError(f"{request.repository} is no directory")
    name = request.name or f"imported_{architecture.name}".replace("-", "_")
    if not NAME.fullmatch(name):
        raise CheckpointError(f"{name!r} is no model name: lower-case letters, digits and underscores")
    if (request.repository / name).exists() and not request.replace:
        raise CheckpointError(f"the model repository already holds {name}: choose another name, or replace it")
    if request.size is not None and architecture.modality is Modality.SPEECH:
        raise CheckpointError("the input length of a speech network cannot be chosen")
    if request.fake_class is not None:
        architecture = replace(architecture, fake_class=request.fake_class)
    return architecture, name


def _card(request: ImportRequest, architecture: Architecture, name: str, facts: tuple[int, int, float]) -> Card:
    size, parameters, difference = facts
    face = architecture.modality is Modality.FACE
    limit = "It is not calibrated: its logit orders inputs, but is no probability of this stack."
    return Card(
        name=name,
        task="P(deepfake) of one face crop" if face else "P(synthetic speech) of up to 4 s of speech",
        trained_on="imported checkpoint, training data as stated by its publisher",
        headline=UNMEASURED,
        data=["as stated by its publisher"],
        split="unknown: nothing was trained here",
        seed=0,
        command=f"bonafide models import {architecture.name} {request.checkpoint.name}",
        metrics={
            f"{PARITY_INPUTS} random inputs, graph against torch": {
                "max_difference": Measure(difference, 0.0, difference, PARITY_INPUTS)
            }
        },
        licence=request.licence,
        limits=[limit, "How it does on other data than its publisher's is unknown until it is measured."],
        inputs={"crops": "uint8 [n, 224, 224, 3] RGB"} if face else {"samples": "float32 [n, t], 16 kHz mono"},
        outputs={"logit": "float32 [n, 1], natural log-odds of fake as trained"},
        extra={
            "architecture": architecture.name,
            "source": architecture.source,
            "input_size": size,
            "parameters": parameters,
            "parity": {"inputs": PARITY_INPUTS, "largest_difference": difference},
            "checkpoint": {"file": request.checkpoint.name, "sha256": file_sha256(request.checkpoint)},
            "imported": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def load_into_triton(name: str, address: str, *, timeout: float = 60.0) -> None:
    """Have a running server load a model, without a restart.

    Raises:
        CheckpointError: the server cannot be reached, manages its models by itself, or refuses.
    """
    client = triton.InferenceServerClient(url=address)
    try:
        client.load_model(name, client_timeout=timeout)
        if not client.is_model_ready(name, client_timeout=timeout):
            raise CheckpointError(f"Triton at {address} loaded {name}, but does not call it ready")
    except InferenceServerException as error:
        raise CheckpointError(f"Triton at {address} did not load {name}: {error.message()}") from error
    finally:
        client.close()
