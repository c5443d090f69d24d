"""What was tried for forgeries that nobody trained on, measured alike: ``python -m training.ensemble.study``.

Every idea is a score of single crops. Linear heads are fitted on the training rows of the mixed set and measured by
cross-validation over its whole sources; all are measured on the held-out parts, alone and added to the frame
classifier (both scaled to the same deviation, without fitted weights, so that nothing is chosen on these rows).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.crop_models import ROOT, Part, drawn, faces_of, held_out_parts
from training.data import folds
from training.ensemble.probe import FOLDS, STRENGTH, ShallowProbe, fit_unit
from training.ensemble.texture import texture_of
from training.frame.network import FrameClassifier, load_imagenet_weights
from training.frame.selection import training_rows
from training.metrics import Measure, measure

Floats = npt.NDArray[np.float64]
PAGE = ROOT / "docs" / "evaluation" / "unseen-sources.md"
MOST_ROWS = 500
"""Rows of a held-out part that are looked at, evenly spread."""
WEAK_STRENGTH = 1e-2
KEPT = (0.85,)
"""Shares of the fine-tuned weights in blends with the ImageNet start (Wortsman et al. 2022)."""


@dataclass(frozen=True, slots=True)
class Idea:
    """An idea's scores of each held-out part, and its cross-validated figure if it is fitted here."""

    words: str
    scores: tuple[Floats, ...]
    across: Measure | None = None


@torch.inference_mode()
def over_crops(look: Callable[[Tensor], Tensor], part: Part, batch: int = 16) -> Floats:
    """What a network says of every row's crop: float64 [rows, ...]."""
    rows = part.rows.tolist()
    found = []
    for start in range(0, len(rows), batch):
        crops = np.stack([part.faces.crop(row) for row in rows[start : start + batch]])
        found.append(look(torch.from_numpy(crops)).double().numpy())
    return np.concatenate(found)


def judge(weights: dict[str, Tensor], *, mirrored: bool = False) -> Callable[[Tensor], Tensor]:
    """The frame classifier's logit with some weights, of crops or of their mirror images."""
    model = FrameClassifier()
    model.load_state_dict(weights)
    model.eval()
    return lambda crops: cast("Tensor", model(crops.flip(2) if mirrored else crops)[0][:, 0])


def blended(one: dict[str, Tensor], other: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights between two networks; ``share`` is that of the second."""
    return {
        name: torch.lerp(one[name], value, share) if value.dtype.is_floating_point else value
        for name, value in other.items()
    }


def stages(model: FrameClassifier) -> Callable[[Tensor], Tensor]:
    """Means and deviations of every stage as ``ShallowProbe`` reads them, then the pooled features: [n, width]."""

    def look(crops: Tensor) -> Tensor:
        backbone = model.backbone
        pixels = torch.nn.functional.interpolate(
            crops.permute(0, 3, 1, 2).float(), (model.size, model.size), mode="bilinear"
        )
        values = backbone.bn1(backbone.conv_stem((pixels - 127.0) / 128.0))
        found = []
        for stage in backbone.blocks:
            values = stage(values)
            found += [values.mean(dim=(2, 3)), values.std(dim=(2, 3), correction=0)]
        found.append(backbone.bn2(backbone.conv_head(values)).mean(dim=(2, 3)))
        return torch.cat(found, dim=1)

    return look


def textures(part: Part) -> Floats:
    """Residual statistics of every row: float64 [rows, width]."""
    rows = part.rows.tolist()
    return np.stack([texture_of(part.faces.picture(row), part.faces.boxes[row]) for row in rows]).astype(np.float64)


def fitted(words: str, train: Part, values: Floats, held: Sequence[Floats], strength: float) -> Idea:
    """A linear head on some features: cross-validated over whole sources, then fitted on all of them."""
    labels = train.faces.labels[train.rows]
    sources = [train.faces.examples[row].fields["source"] for row in train.rows.tolist()]
    dealt, log_odds = folds(sources, FOLDS), np.zeros(len(labels))
    for fold in np.unique(dealt):
        learnt = np.flatnonzero(dealt != fold)
        weights, bias = fit_unit(values[learnt], labels[learnt], [sources[at] for at in learnt], strength)
        log_odds[dealt == fold] = values[dealt == fold] @ weights + bias
    across = measure(labels, log_odds, sources, probabilities=False)["auc"]
    weights, bias = fit_unit(values, labels, sources, strength)
    return Idea(words, tuple(part @ weights + bias for part in held), across)


def table(ideas: Sequence[Idea], parts: Sequence[Part]) -> str:
    """All ideas as a Markdown table; the first is what the others are added to."""
    names = [part.name for part in parts]
    titles = [*names, *(f"{name}, added to the first" for name in names)]
    lines = [f"| idea | sources of the training set, cross-validated | {' | '.join(titles)} |"]
    lines.append("|---" * (len(titles) + 2) + "|")
    for idea in ideas:
        sums = [own / own.std() + first / first.std() for own, first in zip(idea.scores, ideas[0].scores, strict=True)]
        cells = [_figure(part, scores) for part, scores in zip([*parts, *parts], [*idea.scores, *sums], strict=True)]
        lines.append(f"| {idea.words} | {_shown(idea.across) if idea.across else '–'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(part: Part, scores: Floats) -> str:
    groups = [f"{part.faces.examples[row].group}" for row in part.rows.tolist()]
    return _shown(measure(part.faces.labels[part.rows], scores, drawn(groups), probabilities=False)["auc"])


def _shown(figure: Measure) -> str:
    return f"{figure.value:.3f} ({figure.low:.2f}–{figure.high:.2f})"


def checkpoint_ideas(files: Sequence[Path], parts: Sequence[Part]) -> list[Idea]:
    """The averaged weights of each checkpoint, the last one first; then what is made of them."""
    states = [torch.load(file, map_location="cpu", weights_only=True)["average"] for file in files]
    last, start = states[-1], FrameClassifier()
    load_imagenet_weights(start)
    origin = {**start.state_dict(), **{name: last[name] for name in ("unit.weight", "unit.bias")}}
    variants = {f"frame classifier, {files[-1].stem}": last}
    for file, state in zip(files[:-1], states[:-1], strict=True):
        variants |= {f"frame classifier, {file.stem}": state}
        variants |= {f"mean of the weights of {file.stem} and {files[-1].stem}": blended(state, last, 0.5)}
    variants |= {f"{share:.0%} fine-tuned weights, the rest ImageNet's": blended(origin, last, share) for share in KEPT}
    ideas = []
    for words, weights in variants.items():
        look = judge(weights)
        ideas.append(Idea(words, tuple(over_crops(look, part) for part in parts)))
    mirrored = judge(last, mirrored=True)
    return [*ideas, Idea("frame classifier, mirrored", tuple(over_crops(mirrored, part) for part in parts))]


def main() -> None:
    """Measure all ideas and write the page."""
    parser = argparse.ArgumentParser(prog="python -m training.ensemble.study", description=__doc__)
    parser.add_argument("checkpoints", nargs="+", type=Path, help="of the frame classifier, the served one last")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    mixed = faces_of("manipulated_faces_train")
    parts = [Part(p.name, p.faces, p.rows[:: -(-len(p.rows) // MOST_ROWS)]) for p in held_out_parts(mixed)]
    train = Part("train", mixed, training_rows(mixed.examples))
    ideas = checkpoint_ideas(options.checkpoints, parts)
    frozen = FrameClassifier()
    load_imagenet_weights(frozen)
    seen = [over_crops(stages(frozen.eval()), part) for part in (train, *parts)]
    shallow = ShallowProbe().unit.in_features
    for words, width in {"shallow frozen features": shallow, "frozen features of all depths": None}.items():
        for strength in (STRENGTH, WEAK_STRENGTH):
            values = [of_part[:, :width] for of_part in seen]
            ideas.append(fitted(f"{words}, C = {strength:g}", train, values[0], values[1:], strength))
    texture = [textures(part) for part in (train, *parts)]
    ideas.append(fitted(f"residual statistics, C = {STRENGTH:g}", train, texture[0], texture[1:], STRENGTH))
    PAGE.write_text(f"{_intro(options.checkpoints)}\n\n{table(ideas, parts)}\n", encoding="utf-8")


def _intro(files: Sequence[Path]) -> str:
    command = " ".join(file.name for file in files)
    return (
        "# Forgeries that nobody trained on: what was tried\n\n"
        f"Made by `python -m training.ensemble.study` on the checkpoints {command}. AUC of single crops with 95 % "
        "intervals (bootstrap over groups; for cross-validation over sources). "
        f"{' '.join((__doc__ or '').split(chr(10) + chr(10))[1].split())}"
    )


if __name__ == "__main__":
    main()
