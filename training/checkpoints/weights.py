"""Reads published checkpoints into plain state dictionaries; nothing in them is ever executed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

State = Mapping[str, Tensor]
WRAPPINGS = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Keys under which training scripts keep the parameters."""
PREFIXES = ("module.", "_orig_mod.")
"""What wrappers for several devices or for compilation put before every name."""


class CheckpointError(Exception):
    """A checkpoint cannot be imported; the sentence says why."""


def read_torch(path: Path) -> dict[str, Tensor]:
    """Parameters of a torch checkpoint, without wrappings and wrappers' prefixes.

    Raises:
        CheckpointError: it holds more than tensors and plain containers, or no parameters.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about unusual pickle protocols: then it fails or it loads
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path.name} cannot be read as plain weights (nothing else is loaded, for it could run code): {first}"
        ) from error
    while isinstance(content, Mapping):
        inner = next((key for key in WRAPPINGS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = content[inner]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path.name} holds no dictionary of parameters")
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    if not state:
        raise CheckpointError(f"{path.name} holds no parameters")
    return state


def read_keras(path: Path) -> dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    """Weights of each layer of a Keras HDF5 file, layers of a kind in the order in which they were made.

    Keras numbers layers as they are made, so the numbers in their names sort them.

    Raises:
        CheckpointError: it is no such file.
    """
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            names = [_text(name) for name in root.attrs["layer_names"]]
            layers = {name: [_text(weight) for weight in root[name].attrs["weight_names"]] for name in names}
            found = {
                name: [np.asarray(root[name][weight], dtype=np.float32) for weight in weights]
                for name, weights in layers.items()
                if weights
            }
    except (OSError, KeyError) as error:
        raise CheckpointError(f"{path.name} is no Keras weights file") from error
    return dict(sorted(found.items(), key=lambda item: (_kind(item[0]), _number(item[0]))))


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _kind(layer: str) -> str:
    return re.sub(r"_?\d+$", "", layer)


def _number(layer: str) -> int:
    found = re.search(r"(\d+)$", layer)
    return int(found.group(1)) if found else 0


def meso_state(path: Path, model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters of Meso4 or MesoInception4 from their Keras file.

    Args:
        path: the file.
        model: the network to fill; its modules are registered in the order of Keras's layers.

    Raises:
        CheckpointError: layers are missing or left over.
    """
    layers = read_keras(path)
    kinds = {"conv2d": torch.nn.Conv2d, "batch_normalization": torch.nn.BatchNorm2d, "dense": torch.nn.Linear}
    state: dict[str, Tensor] = {}
    for kind, module_type in kinds.items():
        stored = [weights for name, weights in layers.items() if _kind(name) == kind]
        modules = [name for name, module in model.named_modules() if isinstance(module, module_type)]
        if len(stored) != len(modules):
            raise CheckpointError(f"{path.name} has {len(stored)} {kind} layers, the network {len(modules)}")
        for name, weights in zip(modules, stored, strict=True):
            state |= {f"{name}.{key}": value for key, value in _converted(kind, weights).items()}
    unknown = {_kind(name) for name in layers} - kinds.keys()
    if unknown:
        raise CheckpointError(f"{path.name} has layers that the network lacks: {', '.join(sorted(unknown))}")
    return state


def _converted(kind: str, weights: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> dict[str, Tensor]:
    """Keras keeps kernels as height, width, inputs, outputs, and dense weights as inputs, outputs."""
    tensors = [torch.from_numpy(np.ascontiguousarray(weight)) for weight in weights]
    if kind == "conv2d":
        return {"weight": tensors[0].permute(3, 2, 0, 1).contiguous(), "bias": tensors[1]}
    if kind == "dense":
        return {"weight": tensors[0].T.contiguous(), "bias": tensors[1]}
    scale, shift, mean, variance = tensors
    return {
        "weight": scale,
        "bias": shift,
        "running_mean": mean,
        "running_var": variance,
        "num_batches_tracked": torch.tensor(0),
    }


def load_exactly(model: torch.nn.Module, state: State, name: str) -> None:
    """Fill a network; every parameter must be there with its shape, and nothing may be left over.

    Raises:
        CheckpointError: names or shapes differ; names the first few.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    # Counters of batches say nothing about the weights, and old checkpoints lack them.
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    other = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    for fault, keys in (("lacks", missing), ("has unknown", extra), ("has other shapes for", other)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"this is no {name} checkpoint: it {fault} {', '.join(keys[:3])}{more}")
    model.load_state_dict({**own, **state}, strict=True)
