"""From trained members to the model repository: networks, cards, and the file with their weights."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.visual.ensemble import FILE
from services.visual.scoring import FRAME_MODEL
from training.calibration import Line, fit_line
from training.cards import Card, metrics_as_dict, write_card
from training.crop_models import INPUTS, LICENCE, REPOSITORY, ROOT, HeldOut, Part, drawn, export, headline
from training.ensemble.members import MESO_SIDE, PUBLISHED
from training.ensemble.training import EVERY
from training.ensemble.weighing import Weighing, cross_fitted, earning, weigh
from training.metrics import Measure, measure

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]
CACHE = ROOT / ".cache" / "ensemble"
PROBE = "shallow_probe"
TASKS = {
    PROBE: "P(deepfake) of one face crop from how it is rendered: a linear unit on frozen shallow ImageNet features",
    "resnet18": "P(deepfake) of one face crop from its texture: ResNet-18 at half width over the unscaled crop",
    "meso4": f"P(deepfake) of one face crop: Meso4 over the whole face at {MESO_SIDE} pixels",
    "mesoinception4": f"P(deepfake) of one face crop: MesoInception4 over the whole face at {MESO_SIDE} pixels",
}
SOURCES = {
    PROBE: "linear probe of frozen features (Ojha, Li and Lee 2023) of EfficientNet-Lite0 (Tan and Le 2019)",
    "resnet18": "ResNet-18 (He et al. 2016)",
    "meso4": "Meso4 (Afchar et al. 2018)",
    "mesoinception4": "MesoInception4 (Afchar et al. 2018)",
}
BATCHES = "7,000 DFDC pairs, many-method stills of 100 sources, self-blended images"
FROM_PUBLISHED = f"{BATCHES}; from the weights that their authors published, learnt on the MesoNet set"
TRAINED_ON = {
    PROBE: "many-method stills of 90 sources, as they are and degraded; ImageNet features, frozen",
    "resnet18": f"{BATCHES}; from scratch",
    "meso4": FROM_PUBLISHED,
    "mesoinception4": FROM_PUBLISHED,
}
SEEN = dict.fromkeys(PUBLISHED, "mesonet_faces_train")
"""Held-out part that a member has seen all the same: figures on it flatter it, and it is not weighed there."""
TIMED_CROPS = 8


class CalibratedMember(nn.Module):
    """A member with its calibration inside."""

    def __init__(self, member: nn.Module, line: Line) -> None:
        super().__init__()
        self.member, self.line = member, line

    def forward(self, crops: Tensor) -> tuple[Tensor]:
        """Calibrated logit [n, 1] of uint8 crops."""
        return (cast("Tensor", self.member(crops)) * self.line.scale + self.line.bias,)


@dataclass(frozen=True, slots=True)
class Training:
    """What cards say of a run."""

    command: str
    seed: int
    steps: int
    seconds: float


def export_members(
    members: nn.ModuleDict, parts: Sequence[Part], training: Training, extra: Mapping[str, Mapping[str, Any]]
) -> None:
    """Calibrate, export and measure each member by itself; writes model, configuration and card.

    Args:
        members: by name.
        parts: what none of them was trained on.
        training: for the cards.
        extra: further entries of the cards, by member.
    """
    shutil.rmtree(CACHE / "left_out", ignore_errors=True)
    for name, member in members.items():
        held_out = HeldOut.of(parts, [_logits(member.eval(), part) for part in parts])
        line = fit_line(held_out.logits, held_out.labels, held_out.parts)
        export(CalibratedMember(member, line), name, {"logit": "1"})
        metrics = held_out.metrics()
        log.info("%s: %s", name, headline(metrics))
        card = _card(name, member, line, metrics, training)
        write_card(replace(card, extra={**card.extra, **extra.get(name, {})}), REPOSITORY)


def fit_ensemble(names: Sequence[str], parts: Sequence[Part], training: Training) -> dict[str, Any]:
    """Weigh the served networks against each other on the held-out parts, and write what the service reads.

    Members without a weight leave the model repository, so that nobody loads them for nothing.

    Args:
        names: the members beside the frame classifier.
        parts: what none of them was trained on.
        training: for the record.

    Returns:
        What was written.
    """
    bring_back(names)
    engine, repository = EmbeddedEngine(ModelRepository(REPOSITORY)), ModelRepository(REPOSITORY)
    members = (FRAME_MODEL, *names)
    columns, costs = zip(*(_served(engine, name, parts) for name in members), strict=True)
    logits = np.stack(columns, axis=1)
    held_out = HeldOut.of(parts, np.split(logits[:, 0], np.cumsum([len(part.rows) for part in parts])[:-1]))
    fitted = weighed(logits, held_out, members, _whole_sources(parts))
    judged = tuple(fitted.weights)
    logits = logits[:, [members.index(name) for name in judged]]
    together = cross_fitted(logits, held_out.labels, held_out.parts, judged, _whole_sources(parts))
    content = {
        "bias": fitted.bias,
        "members": [
            {"model": name, "sha256": repository.card(name).sha256, "weight": weight}
            for name, weight in fitted.weights.items()
        ],
        "left_out": {name: repository.card(name).details["metrics"] for name in members if name not in fitted.weights},
        "milliseconds_a_crop": {name: round(cost, 1) for name, cost in zip(members, costs, strict=True)},
        "cost_over_frame_classifier": round(
            sum(cost for name, cost in zip(members, costs, strict=True) if name in fitted.weights) / costs[0], 2
        ),
        "metrics": metrics_as_dict(_figures(held_out, together)),
        "metrics_frame_classifier_alone": metrics_as_dict(held_out.metrics()),
        "split": "weights fitted on the held-out parts of the frame classifier; figures cross-fitted by group, and by "
        "whole sources where there are several",
        "command": training.command,
        "date": datetime.now(UTC).date().isoformat(),
    }
    (REPOSITORY / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in content["left_out"]:
        (CACHE / "left_out").mkdir(parents=True, exist_ok=True)
        shutil.move(REPOSITORY / name, CACHE / "left_out" / name)
    return content


def bring_back(names: Sequence[str]) -> None:
    """Put members that were left out last time back into the model repository, to be weighed again."""
    for name in names:
        if (CACHE / "left_out" / name).is_dir():
            shutil.rmtree(REPOSITORY / name, ignore_errors=True)
            shutil.move(CACHE / "left_out" / name, REPOSITORY / name)


def weighed(logits: Floats, held_out: HeldOut, members: Sequence[str], sources: Sequence[str]) -> Weighing:
    """Weigh the members that are worth their cost, by parts that none of them has seen.

    Args:
        logits: [rows, members].
        held_out: labels and parts of the rows.
        members: their names.
        sources: [rows], what weights and the rows they are judged on must not share.
    """
    parts = np.array(held_out.parts)

    def fair(names: Sequence[str]) -> npt.NDArray[np.bool_]:
        return ~np.isin(parts, [SEEN[name] for name in names if name in SEEN])

    rows = fair(members)
    labels, cells, whole = held_out.labels[rows], parts[rows].tolist(), np.array(sources)[rows].tolist()
    worthy = earning(logits[rows], labels, cells, members, whole)
    rows = fair(worthy)
    columns = [members.index(name) for name in worthy]
    return weigh(logits[rows][:, columns], held_out.labels[rows], parts[rows].tolist(), worthy)


def _whole_sources(parts: Sequence[Part]) -> list[str]:
    """What a fold of the weights must not divide, for each row: its source, or its group in a set of one source."""
    examples = [(part, part.faces.examples[row]) for part in parts for row in part.rows]
    return [f"{part.name}:{example.fields.get('source') or example.group}" for part, example in examples]


def _figures(held_out: HeldOut, probabilities: Floats) -> dict[str, dict[str, Measure]]:
    kinds, groups = np.array(held_out.parts), np.array(held_out.groups)
    chosen = {"all": np.ones(len(kinds), bool)} | {name: kinds == name for name in dict.fromkeys(held_out.parts)}
    return {
        name: measure(held_out.labels[rows], probabilities[rows], drawn(groups[rows].tolist()))
        for name, rows in chosen.items()
    }


def _limits(name: str) -> tuple[str, ...]:
    weak = "a companion of frame_classifier: weak by itself"
    return (weak, f"figures on {SEEN[name]} flatter it: it began there") if name in SEEN else (weak,)


@torch.inference_mode()
def _logits(member: nn.Module, part: Part, batch: int = 16) -> Floats:
    found = []
    for start in range(0, len(part.rows), batch):
        crops = np.stack([part.faces.crop(int(row)) for row in part.rows[start : start + batch]])
        found.append(member(torch.from_numpy(crops))[:, 0].double().numpy())
    return np.concatenate(found)


def _served(engine: EmbeddedEngine, name: str, parts: Sequence[Part], batch: int = TIMED_CROPS) -> tuple[Floats, float]:
    """Logits of all parts by a served network, and its median cost, milliseconds a crop."""
    found, spent = [], []
    for part in parts:
        for start in range(0, len(part.rows), batch):
            crops = np.stack([part.faces.crop(int(row)) for row in part.rows[start : start + batch]])
            began = time.process_time()
            found.append(engine.run(name, {"crops": crops})["logit"][:, 0].astype(np.float64))
            spent.append((time.process_time() - began) * 1000 / len(crops))
    return np.concatenate(found), float(np.median(spent))


def _card(
    name: str, member: nn.Module, line: Line, metrics: Mapping[str, Mapping[str, Measure]], training: Training
) -> Card:
    return Card(
        name=name,
        task=TASKS[name],
        trained_on=TRAINED_ON[name],
        headline=headline(dict(metrics)),  # type: ignore[arg-type]
        data=("dfdc_faces_train", "manipulated_faces_train less held-out, subtle and confounded sources"),
        split="as frame_classifier: whole groups and whole sources held out, mesonet_faces_train not trained on; "
        "calibration fitted on the three held-out parts, cross-fitted by group for the figures",
        seed=training.seed,
        command=training.command,
        metrics=metrics,
        licence=f"{LICENCE}; it began as published weights under Apache-2.0" if name in PUBLISHED else LICENCE,
        limits=_limits(name),
        inputs=INPUTS,
        outputs={"logit": "FP32 [n, 1], calibrated natural log-odds of a deepfake"},
        extra={
            "parameters": sum(value.numel() for value in member.parameters()),
            "calibration": {"scale": line.scale, "bias": line.bias},
            "training": {"steps": training.steps // EVERY.get(name, 1), "seconds": round(training.seconds)},
            "method": SOURCES[name],
            "ensemble": f"its weight, or that it has none, is in {FILE}",
        },
    )
