"""Putting a further version of a model, or of the fusion heads, beside those that are served.

Nothing is served by that: a version takes part once the rollout file names it. It is tried and written down apart
and then moved into place in one step, because Triton starts with every version that it finds, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from services.common.errors import ModelRepositoryError
from services.common.models import HEADS, ModelRepository
from services.common.quiet_onnxruntime import onnxruntime
from services.common.triton_care import read_config, synthetic_inputs


def stage(repository: ModelRepository, name: str, version: str, source: Path) -> Path:
    """Copy a version into a repository.

    Args:
        repository: where to.
        name: of a model that is there already, or ``fusion_heads``.
        version: a number that is not taken.
        source: a model's directory in another repository, with its card; for heads the directory of their manifest.

    Returns:
        The directory of the new version.

    Raises:
        BonafideError: the source is not to be trusted, does not fit, or the version is taken.
    """
    target = repository.root / name / version
    if target.exists():
        raise ModelRepositoryError(f"{name}/{version} is taken: choose another number")
    if not version.isdecimal() or version.startswith("0"):
        raise ModelRepositoryError("a version is a whole number from 1 on")
    repository.root.joinpath(name).mkdir(exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=repository.root / name))
    try:
        card = _heads(source, draft) if name == HEADS else _network(repository, name, source, draft)
        facts = card | {"name": name, "version": version}
        (draft / "card.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.chmod(0o755)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def unstage(repository: ModelRepository, name: str, version: str) -> None:
    """Remove a version that has a card of its own.

    Raises:
        ModelRepositoryError: it has none: the version of a root card cannot be taken away.
    """
    if version not in repository.staged(name):
        raise ModelRepositoryError(f"{name}/{version} was not staged, so it stays")
    gone = repository.root / name / f".gone-{version}"
    (repository.root / name / version).rename(gone)  # in one step: Triton must not see half of it
    shutil.rmtree(gone)


def _network(repository: ModelRepository, name: str, source: Path, draft: Path) -> dict[str, Any]:
    origin = ModelRepository(source.resolve().parent)
    card = origin.verified(source.resolve().name)
    shutil.copyfile(origin.model_file(card), draft / "model.onnx")
    for document in origin.root.glob("*.json"):
        if card.sha256 in document.read_text(encoding="utf-8"):  # it was fitted on this very network
            shutil.copyfile(document, draft / document.name)
    config = repository.root / name / "config.pbtxt"
    if not config.is_file():
        raise ModelRepositoryError(f"the model repository has no {name} that this could be a version of")
    _try(draft / "model.onnx", config)
    return card.details


def _try(file: Path, config_file: Path) -> None:
    """Run a network once on the smallest inputs.

    Raises:
        ModelRepositoryError: it does not take or give what the model's configuration says, or fails.
    """
    config = read_config(config_file)
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        values = session.run([output.name for output in config.output], synthetic_inputs(config))
    except Exception as error:
        raise ModelRepositoryError("the network does not run as the model's configuration says") from error
    for output, value in zip(config.output, values, strict=True):
        if value.shape[0] != 1 or not np.isfinite(value).all():
            raise ModelRepositoryError(f"the network's output {output.name} is not what it must be")


def _heads(source: Path, draft: Path) -> dict[str, Any]:
    from services.fusion.heads import MANIFEST, load_heads, read_manifest  # noqa: PLC0415 - a client has no fusion

    heads = load_heads(source)
    fitted_on = [dict(head.training.get("models", {})) for head in heads.values()]
    if not fitted_on[0] or any(each != fitted_on[0] for each in fitted_on):
        raise ModelRepositoryError("the heads do not say, or not with one voice, which models they were fitted on")
    for name in (MANIFEST, *read_manifest(source)):
        (draft / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, draft / name)
    widest = max(heads.values(), key=lambda head: len(head.branches)).training
    return {
        "sha256": hashlib.sha256((draft / MANIFEST).read_bytes()).hexdigest(),
        "trained_on": f"scores of {len(fitted_on[0])} models and documents; rows: {widest.get('rows', 'not told')}",
        "headline": f"held out, all branches: {widest.get('held_out', {}).get('all', 'not told')}",
        "licence": "as this project",
        "models": fitted_on[0],
    }
