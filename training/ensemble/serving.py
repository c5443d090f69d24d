"""From trained members to the model repository: networks, cards, and the file with their weights."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import Tensor, nn

from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.visual.ensemble import FILE
from services.visual.scoring import FRAME_MODEL
from training.calibration import Line, fit_line
from training.cards import Card, metrics_as_dict, write_card
from training.crop_models import INPUTS, LICENCE, REPOSITORY, ROOT, HeldOut, Part, drawn, export, headline
from training.ensemble.members import MESO_SIDE, PUBLISHED
from training.ensemble.weighing import Judged, Weighing, cross_fitted, weigh
from training.metrics import Measure, measure

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]
CACHE = ROOT / ".cache" / "ensemble"
PROBE = "shallow_probe"
BROAD = "broad_classifier"
TASKS = {
    PROBE: "P(deepfake) of a face crop from how it is rendered, and how much the crop looks like DFDC: linear units on "
    "frozen shallow ImageNet features",
    BROAD: "P(deepfake) of one face crop: the frame classifier's network, learnt mostly on other forgeries than swaps",
    "resnet18": "P(deepfake) of one face crop from its texture: ResNet-18 at half width over the unscaled crop",
    "meso4": f"P(deepfake) of one face crop: Meso4 over the whole face at {MESO_SIDE} pixels",
    "mesoinception4": f"P(deepfake) of one face crop: MesoInception4 over the whole face at {MESO_SIDE} pixels",
}
SOURCES = {
    PROBE: "linear probe of frozen features (Ojha, Li and Lee 2023) of EfficientNet-Lite0 (Tan and Le 2019)",
    BROAD: "EfficientNet-Lite0 (Tan and Le 2019); self-blended images (Shiohara and Yamasaki 2022)",
    "resnet18": "ResNet-18 (He et al. 2016)",
    "meso4": "Meso4 (Afchar et al. 2018)",
    "mesoinception4": "MesoInception4 (Afchar et al. 2018)",
}
BATCHES = "7,000 DFDC pairs, many-method stills of 100 sources, self-blended images"
FROM_PUBLISHED = f"{BATCHES}; from the weights that their authors published, learnt on the MesoNet set"
TRAINED_ON = {
    PROBE: "many-method stills of 90 sources, as they are and degraded; its gate on those against 2,000 DFDC crops; "
    "ImageNet features, frozen",
    BROAD: f"{BATCHES}, mixed two, seven and seven; ImageNet start",
    "resnet18": f"{BATCHES}; from scratch",
    "meso4": FROM_PUBLISHED,
    "mesoinception4": FROM_PUBLISHED,
}
SEEN = dict.fromkeys(PUBLISHED, "mesonet_faces_train")
"""Held-out part that a member has seen all the same: figures on it flatter it, and it is not weighed there."""
ONE_OUTPUT = {"logit": "FP32 [n, 1], calibrated natural log-odds of a deepfake"}
OUTPUTS = {PROBE: {**ONE_OUTPUT, "familiarity": "FP32 [n, 1], log-odds that the crop looks like DFDC"}}
TIMED_CROPS = 8


class CalibratedMember(nn.Module):
    """A member with its calibration inside."""

    def __init__(self, member: nn.Module, line: Line) -> None:
        super().__init__()
        self.member, self.line = member, line

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Calibrated logit [n, 1] of uint8 crops, then whatever else the member answers."""
        answer = self.member(crops)
        logit, *others = answer if isinstance(answer, tuple) else (answer,)
        return (logit * self.line.scale + self.line.bias, *others)


@dataclass(frozen=True, slots=True)
class Training:
    """What a card says of a run; ``figures`` are further entries of it."""

    command: str
    seed: int
    steps: int = 0
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)


def export_members(members: nn.ModuleDict, parts: Sequence[Part], trainings: Mapping[str, Training]) -> None:
    """Calibrate, export and measure each member by itself; writes model, configuration and card.

    Args:
        members: by name.
        parts: what none of them was trained on.
        trainings: for the cards, by member.
    """
    shutil.rmtree(CACHE / "left_out", ignore_errors=True)
    for name, member in members.items():
        held_out = HeldOut.of(parts, [_logits(member.eval(), part) for part in parts])
        line = fit_line(held_out.logits, held_out.labels, held_out.parts)
        export(CalibratedMember(member, line), name, dict.fromkeys(OUTPUTS.get(name, ONE_OUTPUT), "1"))
        metrics = held_out.metrics()
        log.info("%s: %s", name, headline(metrics))
        write_card(_card(name, member, line, metrics, trainings[name]), REPOSITORY)


def fit_ensemble(names: Sequence[str], parts: Sequence[Part], training: Training) -> dict[str, Any]:
    """Weigh the served networks against each other on the held-out parts, and write what the service reads.

    Members without a weight leave the model repository, so that nobody loads them for nothing.

    Args:
        names: the members beside the frame classifier; the probe, which is the gate too, is one of them.
        parts: what none of them was trained on.
        training: for the record.

    Returns:
        What was written.
    """
    bring_back(names)
    engine, repository = EmbeddedEngine(ModelRepository(REPOSITORY)), ModelRepository(REPOSITORY)
    members = (FRAME_MODEL, *names)
    answers, costs = zip(*(_served(engine, name, parts) for name in members), strict=True)
    columns, familiarity = [answer["logit"] for answer in answers], answers[members.index(PROBE)]["familiarity"]
    held_out = HeldOut.of(parts, np.split(columns[0], np.cumsum([len(part.rows) for part in parts])[:-1]))
    judged = Judged(
        np.stack(columns, axis=1),
        expit(familiarity),
        held_out.labels,
        np.array(held_out.parts),
        np.array(_whole_sources(parts)),
    )
    fitted, probabilities = weighed(judged, members)
    sums = {"familiar": fitted.familiar, "unfamiliar": fitted.unfamiliar}
    asked = [
        name for name in members if name in (FRAME_MODEL, PROBE) or any(own.weights[name] > 0 for own in sums.values())
    ]
    spent = {name: round(cost, 1) for name, cost in zip(members, costs, strict=True)}
    content: dict[str, Any] = {
        "gate": PROBE,
        **{
            words: {"bias": own.bias, "weights": {name: own.weights[name] for name in asked}}
            for words, own in sums.items()
        },
        "members": {name: repository.card(name).sha256 for name in asked},
        "left_out": {name: repository.card(name).details["metrics"] for name in members if name not in asked},
        "milliseconds_a_crop": spent,
        "cost_over_frame_classifier": round(sum(spent[name] for name in asked) / spent[FRAME_MODEL], 2),
        "metrics": metrics_as_dict(_figures(held_out, probabilities)),
        "metrics_frame_classifier_alone": metrics_as_dict(held_out.metrics()),
        "flattered": sorted({SEEN[name] for name in asked if name in SEEN}),
        "split": "weights fitted on the held-out parts of the frame classifier but those that flatter a member; "
        "figures cross-fitted by group, and by whole sources where there are several; on a part that flatters, of the "
        "other members alone",
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


def weighed(judged: Judged, members: Sequence[str]) -> tuple[Weighing, Floats]:
    """Weigh the members by parts that none of them has seen.

    Args:
        judged: all held-out rows.
        members: their names.

    Returns:
        The weights, and the probability [rows] of every row by weights that its source had no part in; where a
        member has seen the part, by the others alone.
    """
    fair = ~np.isin(judged.cells, [SEEN[name] for name in members if name in SEEN])
    unseeing = [name for name in members if name not in SEEN]
    columns = [members.index(name) for name in unseeing]
    probabilities = cross_fitted(replace(judged, logits=judged.logits[:, columns]), unseeing)
    probabilities[fair] = cross_fitted(judged.of(fair), members)
    return weigh(judged.of(fair), members), probabilities


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
        answer = member(torch.from_numpy(crops))
        found.append((answer[0] if isinstance(answer, tuple) else answer)[:, 0].double().numpy())
    return np.concatenate(found)


def _served(
    engine: EmbeddedEngine, name: str, parts: Sequence[Part], batch: int = TIMED_CROPS
) -> tuple[dict[str, Floats], float]:
    """Numbers that a served network gives of all crops of all parts, by output, and its median cost, ms a crop."""
    found: dict[str, list[Floats]] = {output: [] for output in OUTPUTS.get(name, ONE_OUTPUT)}
    spent = []
    for part in parts:
        for start in range(0, len(part.rows), batch):
            crops = np.stack([part.faces.crop(int(row)) for row in part.rows[start : start + batch]])
            began = time.process_time()
            outputs = engine.run(name, {"crops": crops})
            spent.append((time.process_time() - began) * 1000 / len(crops))
            for output, columns in found.items():
                columns.append(outputs[output][:, 0].astype(np.float64))
    return {output: np.concatenate(columns) for output, columns in found.items()}, float(np.median(spent))


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
        outputs=OUTPUTS.get(name, ONE_OUTPUT),
        extra={
            "parameters": sum(value.numel() for value in member.parameters()),
            "calibration": {"scale": line.scale, "bias": line.bias},
            "training": {"steps": training.steps, "seconds": round(training.seconds)},
            **training.figures,
            "method": SOURCES[name],
            "ensemble": f"its weight, or that it has none, is in {FILE}",
        },
    )
