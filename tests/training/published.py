"""Checkpoints with the parameter names and shapes that publishers use, filled with random numbers."""

from __future__ import annotations

import h5py
import numpy as np
import torch

Shapes = dict[str, tuple[int, ...]]


def norm(name: str, width: int) -> Shapes:
    parts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{name}.{part}": shape for part, shape in parts.items()} | {f"{name}.num_batches_tracked": ()}


def linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def tiny_ladeda() -> Shapes:
    return {
        "conv1.weight": (8, 3, 1, 1),
        "conv2.weight": (8, 8, 3, 3),
        **norm("bn1", 8),
        "layer1.0.conv1.weight": (8, 8, 1, 1),
        **norm("layer1.0.bn1", 8),
        "layer1.0.conv2.weight": (8, 8, 3, 3),
        **norm("layer1.0.bn2", 8),
        **linear("fc", 8, 1),
    }


def ladeda() -> Shapes:
    found = {"conv1.weight": (64, 3, 1, 1), "conv2.weight": (64, 64, 3, 3), **norm("bn1", 64)}
    inputs = 64
    for number, (width, blocks, wide) in enumerate(((64, 3, 1), (128, 4, 1), (256, 6, 0), (512, 3, 0)), 1):
        for block in range(blocks):
            name, kernel = f"layer{number}.{block}", 3 if block < wide else 1
            found |= {f"{name}.conv1.weight": (width, inputs, 1, 1), **norm(f"{name}.bn1", width)}
            found |= {f"{name}.conv2.weight": (width, width, kernel, kernel), **norm(f"{name}.bn2", width)}
            found |= {f"{name}.conv3.weight": (4 * width, width, 1, 1), **norm(f"{name}.bn3", 4 * width)}
            if block == 0:
                found |= {f"{name}.downsample.0.weight": (4 * width, inputs, 1, 1)}
                found |= norm(f"{name}.downsample.1", 4 * width)
            inputs = 4 * width
    return found | linear("fc", 2048, 1)


def rawnet2() -> Shapes:
    found = norm("first_bn", 20)
    for number, (inputs, outputs) in enumerate([(20, 20), (20, 20), (20, 128), (128, 128), (128, 128), (128, 128)]):
        name = f"block{number}.0"
        found |= norm(f"{name}.bn1", inputs) if number else {}
        found |= {f"{name}.conv1.weight": (outputs, inputs, 3), f"{name}.conv1.bias": (outputs,)}
        found |= norm(f"{name}.bn2", outputs)
        found |= {f"{name}.conv2.weight": (outputs, outputs, 3), f"{name}.conv2.bias": (outputs,)}
        if inputs != outputs:
            found |= {f"{name}.conv_downsample.weight": (outputs, inputs, 1)}
            found |= {f"{name}.conv_downsample.bias": (outputs,)}
        found |= linear(f"fc_attention{number}.0", outputs, outputs)
    found |= norm("bn_before_gru", 128)
    for layer in range(3):
        inputs = 128 if layer == 0 else 1024
        found |= {f"gru.weight_ih_l{layer}": (3072, inputs), f"gru.weight_hh_l{layer}": (3072, 1024)}
        found |= {f"gru.bias_ih_l{layer}": (3072,), f"gru.bias_hh_l{layer}": (3072,)}
    return found | linear("fc1_gru", 1024, 1024) | linear("fc2_gru", 1024, 2)


def filled(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random parameters whose activations neither vanish nor explode."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif len(shape) > 1:
            fan = int(np.prod(shape[1:]))
            state[name] = torch.randn(shape, generator=random) * (1.5 / fan) ** 0.5
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = 0.5 + torch.rand(shape, generator=random)
        else:
            state[name] = 0.1 * torch.randn(shape, generator=random)
    return state


MESO4 = (("conv2d", (3, 3, 3, 8)), ("conv2d", (5, 5, 8, 8)), ("conv2d", (5, 5, 8, 16)), ("conv2d", (5, 5, 16, 16)))


def write_keras_meso4(path: str, *, first: int = 1, nested: bool = False) -> None:
    """A file as Keras 2 writes it; ``first`` is the number that Keras had reached, ``nested`` a whole saved model."""
    random = np.random.default_rng(0)
    layers: list[tuple[str, dict[str, tuple[int, ...]]]] = []
    for number, (_, shape) in enumerate(MESO4, first):
        layers.append((f"conv2d_{number}", {"kernel:0": shape, "bias:0": shape[-1:]}))
        width = shape[-1:]
        norms = {"gamma:0": width, "beta:0": width, "moving_mean:0": width, "moving_variance:0": width}
        layers.append((f"batch_normalization_{number}", norms))
        layers.append((f"max_pooling2d_{number}", {}))
    layers += [("dense_9", {"kernel:0": (1024, 16), "bias:0": (16,)}), ("leaky_re_lu_1", {})]
    layers.append(("dense_10", {"kernel:0": (16, 1), "bias:0": (1,)}))
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if nested else file
        root.attrs["layer_names"] = [name.encode() for name, _ in layers]
        for name, weights in layers:
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{weight}".encode() for weight in weights]
            for weight, shape in weights.items():
                values = np.abs(random.normal(0, 0.2, shape)) if "variance" in weight else random.normal(0, 0.2, shape)
                group.create_dataset(f"{name}/{weight}", data=values.astype(np.float32))
