"""From the clips to ``model_repository/temporal``: ``python -m training.temporal --seed 0``."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from services.common.models import ModelRepository
from services.visual.scoring import FRAME_MODEL
from services.visual.temporal import EMBEDDINGS_OF
from training.cards import Card, write_card
from training.data import clips as listed_clips
from training.metrics import Measure
from training.served import MODEL_REPOSITORY
from training.temporal.corpus import COPIES, ClipRows, read_corpus
from training.temporal.embeddings import with_embeddings
from training.temporal.evaluation import FOLDS, REPEATS, SHRINKAGE, figures, fit_blend, out_of_fold
from training.temporal.export import NAME, build, export
from training.temporal.face_forgery import RECIPES
from training.temporal.fitting import Kind, Sequences, fit_members

CACHE = Path(".cache/temporal/corpus")
LINEAR: Mapping[str, float] = {"texture_linear": 1.0, "motion_linear": 0.5}
SERVED: Mapping[str, float] = {**LINEAR, "embedding_linear": 0.5, "embedding_bilstm": 0.25}
"""Kinds of members that are served and their weights, as held-out sources favour (see the card's ``compared``)."""
CANDIDATES: Mapping[str, Mapping[str, float]] = {
    "texture_linear": {"texture_linear": 1.0},
    "motion_linear": {"motion_linear": 1.0},
    "both_linear": LINEAR,
    "texture_bilstm": {"texture_bilstm": 1.0},
    "motion_bilstm": {"motion_bilstm": 1.0},
    "both_bilstm": {"texture_bilstm": 1.0, "motion_bilstm": 0.5},
    "embedding_linear": {"embedding_linear": 1.0},
    "embedding_bilstm": {"embedding_bilstm": 1.0},
    "both_linear_and_texture_bilstm": {**LINEAR, "texture_bilstm": 0.5},
    "both_linear_and_motion_bilstm": {**LINEAR, "motion_bilstm": 0.5},
    "both_linear_and_embedding_bilstm": {**LINEAR, "embedding_bilstm": 0.5},
    "all_linear": {**LINEAR, "embedding_linear": 0.5},
    "served": SERVED,
    "served_and_texture_bilstm": {**SERVED, "texture_bilstm": 0.5},
    "frame_logit": {"frame_logit": 1.0},
    "both_linear_and_frame_logit": {**LINEAR, "frame_logit": 1.0},
    "served_and_frame_logit": {**SERVED, "frame_logit": 1.0},
}
"""What is compared. The frame classifier's own mean logit is no part of this branch; it stands here to tell what its
embeddings bring beside it, since fusion reads it anyway."""
_log = logging.getLogger("training.temporal")


def main() -> None:
    """Train, measure by held-out source, export, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds and of everything drawn")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="where the model goes")
    parser.add_argument("--cache", type=Path, default=CACHE, help="directory of resumable intermediate results")
    options = parser.parse_args()
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    listed = listed_clips()
    clips = with_embeddings(read_corpus(listed, options.cache, options.seed), listed, options.cache)
    train(clips, options.seed, options.repository, Sequences())


def train(clips: Sequence[ClipRows], seed: int, repository: Path, plan: Sequences) -> None:
    """Compare kinds of members on held-out sources, fit those that are served on everything, and export them."""
    scores = out_of_fold(clips, partial(fit_members, plan=plan, kinds=list(Kind)), seed)
    logits = np.array([clip.frame_logit for clip in clips])
    scores["frame_logit"] = logits / logits.std()
    compared = {}
    for name, weights in CANDIDATES.items():
        found = figures(clips, fit_blend(clips, scores, weights).logits(scores), seed)
        compared[name] = {source: rows["auc"].as_dict() for source, rows in found.items() if "auc" in rows}
        _log.info("%s %s", name, json.dumps({key: round(row["value"], 3) for key, row in compared[name].items()}))
    blend = fit_blend(clips, scores, SERVED)
    export(build(fit_members(clips, seed, plan, SERVED), clips, blend), repository)
    metrics = figures(clips, blend.logits(scores), seed)
    write_card(_card(metrics, clips, seed, compared, scores), repository)


def _card(
    metrics: dict[str, dict[str, Measure]],
    clips: Sequence[ClipRows],
    seed: int,
    compared: dict[str, dict[str, dict[str, float | int]]],
    scores: Mapping[str, npt.NDArray[np.float64]],
) -> Card:
    sources = {clip.source for clip in clips}
    fakes = sum(clip.fake for clip in clips)
    return Card(
        name=NAME,
        task="P(generated or altered face) of one face in up to 10 s of consecutive frames",
        trained_on=f"{len(clips) - fakes} real and {fakes} generated clips of {len(sources)} sources, {COPIES} "
        f"recompressed copies of each, and {len(RECIPES)} forgeries of each real clip",
        headline=f"AUC {metrics['all']['auc']} on clips whose source and identity were held out; "
        + "; ".join(f"{metrics[name]['auc']} on {name}" for name in metrics if name.startswith("all but")),
        data=["clips"],
        split=f"{FOLDS} folds of whole sources, dealt {REPEATS} times; no source and no identity on both sides",
        seed=seed,
        command=f"python -m training.temporal --seed {seed}",
        metrics=metrics,
        licence="Apache-2.0; trained on research material (see data/README)",
        limits=[
            "Weak evidence: trained on about a hundred clips; many unseen generators pass, those by diffusion most.",
            "Subtle face swaps pass (the frame classifier is for those); MPEG-1 video draws false alarms.",
            "Needs at least a second of one face in close succession.",
            "Texture fades with compression and with scaling, which the dense window does to large pictures.",
            "The choice between kinds of members was made on the same held-out sources that are reported.",
            "Calibrated on these sources and shrunk; false-positive rates differ by source.",
            "Bound to the frame classifier it was fitted on: beside another, embeddings are left out of the score.",
        ],
        inputs={
            "texture": "float32 [N, R, 123], R >= 8: services/visual/residuals.py; NaN where a region was not seen",
            "motion": "float32 [N, T, 17], T >= 16: services/visual/expression.py",
            "embeddings": "float32 [N, S, 1280], S >= 4: of the frame classifier, crops in time order; NaN where "
            "there are none, which adds nothing to the log-odds",
        },
        outputs={"logit": "float32 [N, 1], calibrated natural log-odds"},
        extra={
            "calibration": f"Platt scaling on held-out sources, log-odds shrunk by {SHRINKAGE}, inside the graph",
            "served": dict(SERVED),
            "compared": compared,
            "members": sorted(scores),
            EMBEDDINGS_OF: {
                "model": FRAME_MODEL,
                "sha256": ModelRepository(MODEL_REPOSITORY).card(FRAME_MODEL).sha256,
                "width": max(clip.embeddings.shape[1] for clip in clips if clip.embeddings is not None),
            },
        },
    )


if __name__ == "__main__":
    main()
