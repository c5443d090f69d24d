"""Makes torchvision and torchaudio importable beside a torch without CUDA.

Their published wheels are built for CUDA: their native libraries need libraries that a CPU build of torch
lacks, and importing either fails. Nothing that is trained here needs the native parts. Where torch has CUDA,
or the libraries load, nothing in this module acts.

``python -m training.torch_setup`` is the step after installation: it takes torchaudio's native libraries
away, which its own loader then treats as "no native extension". ``prepare()`` is called before torchvision
or timm is imported: it declares the two operators that torchvision expects its library to bring.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch


def native_library_loads(file: Path) -> bool:
    """Whether torch can load a native library."""
    try:
        torch.ops.load_library(file)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


@cache
def prepare() -> tuple[Any, ...]:
    """Declare torchvision's operators if its library cannot; call before importing torchvision or timm.

    Returns:
        What must stay alive for the declarations to hold; empty where nothing had to be done.
    """
    if torch.version.cuda or _any_library_loads("torchvision", "_C*.so"):
        return ()
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return (library,)


def remove_unloadable_audio_libraries() -> list[Path]:
    """Delete torchaudio's native libraries if torch has no CUDA and they do not load.

    Returns:
        The files removed.
    """
    if torch.version.cuda or _any_library_loads("torchaudio", "lib/_torchaudio*.so"):
        return []
    folder = _package_folder("torchaudio")
    removed = sorted(folder.glob("lib/*.so")) if folder else []
    for file in removed:
        file.unlink()
    return removed


def _any_library_loads(package: str, pattern: str) -> bool:
    folder = _package_folder(package)
    return folder is not None and any(native_library_loads(file) for file in folder.glob(pattern))


def _package_folder(package: str) -> Path | None:
    """Where a package is installed, found without importing it."""
    specification = importlib.util.find_spec(package)
    if specification is None or specification.origin is None:
        return None
    return Path(specification.origin).parent


if __name__ == "__main__":
    files = remove_unloadable_audio_libraries()
    sys.stdout.write(f"removed {len(files)} native torchaudio libraries that need CUDA\n")
