"""Trains, calibrates, exports and measures the patch gate, and chooses where it may end an analysis early."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.special import expit
from scipy.stats import beta
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from training.calibration import Line, fit_line
from training.cards import Card, write_card
from training.crop_models import INPUTS, LICENCE, REPOSITORY, HeldOut, Part, export, faces_of, held_out_parts
from training.crop_models import headline as headline_of
from training.frame.batches import BatchSource, Mixture
from training.patch.network import PatchGate

NAME = "patch_gate"
MOST_LOST = 0.01
CONFIDENCE = 0.95
LEAST_SAVED = 0.05
"""Share of bona fide crops that an early exit must spare the slower networks, to be worth its risk."""
log = logging.getLogger(__name__)


class CalibratedPatchGate(nn.Module):
    """The gate with its calibration inside."""

    def __init__(self, model: PatchGate, line: Line) -> None:
        super().__init__()
        self.model, self.line = model, line

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated logit [n, 1] and patch logits [n, h, w] of uint8 crops."""
        logit, patches = self.model(crops)
        return logit * self.line.scale + self.line.bias, patches * self.line.scale + self.line.bias


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Below ``logit`` a crop is cleared: ``saved`` of the bona fide, few fakes (``lost_bound``: 95 % confidence)."""

    logit: float
    lost: int
    fakes: int
    lost_bound: float
    saved: float

    @classmethod
    def choose(cls, log_odds: np.ndarray, labels: np.ndarray) -> OperatingPoint:
        """The highest threshold whose Clopper-Pearson upper bound on lost fakes stays within MOST_LOST."""
        fakes = np.sort(log_odds[labels == 1])
        lost = 0
        while lost + 1 < fakes.size and _upper_bound(lost + 1, fakes.size) <= MOST_LOST:
            lost += 1
        threshold = float(fakes[lost])
        return cls(
            logit=threshold,
            lost=lost,
            fakes=int(fakes.size),
            lost_bound=_upper_bound(lost, fakes.size),
            saved=float((log_odds[labels == 0] < threshold).mean()),
        )

    def to_card(self) -> dict[str, float | int | bool | str]:
        """The card's entry; ``early_exit`` is on only where it saves something within its bound."""
        return {
            "early_exit": self.saved >= LEAST_SAVED and self.lost_bound <= MOST_LOST,
            "threshold": round(float(expit(self.logit)), 4),
            "fakes_lost": self.lost,
            "fakes": self.fakes,
            "lost_upper_bound": round(self.lost_bound, 4),
            "bona_fide_spared": round(self.saved, 4),
            "meaning": "a clip is cleared when P(deepfake) of every face is below the threshold; the bound is "
            "one-sided Clopper-Pearson at 95 %, for single crops exchangeable with the held-out parts",
        }


def _upper_bound(events: int, trials: int) -> float:
    return float(beta.ppf(CONFIDENCE, events + 1, trials - events))


def train(source: BatchSource, steps: int, seed: int) -> PatchGate:
    """A gate trained for some steps on the frame classifier's own batches (AdamW, one-cycle rate)."""
    torch.manual_seed(seed)
    model = PatchGate().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)
    loader: DataLoader[object] = DataLoader(source, batch_size=None, sampler=range(steps), num_workers=1)  # type: ignore[arg-type]
    for crops, labels in tqdm(loader, total=steps, desc=NAME, mininterval=5):
        logits = model(crops)[0][:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def logits_on(model: PatchGate, part: Part, batch: int = 16) -> np.ndarray:
    """Raw logit of every row of a part: float64 [rows]."""
    found = []
    for start in range(0, len(part.rows), batch):
        crops = np.stack([part.faces.crop(int(row)) for row in part.rows[start : start + batch]])
        found.append(model(torch.from_numpy(crops))[0][:, 0].double().numpy())
    return np.concatenate(found)


def main() -> None:
    """Train, then write model, configuration and card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    mixed = faces_of("manipulated_faces_train")
    mixture = Mixture(swapped=6, blended=4, mixed=6)
    source = BatchSource(faces_of("dfdc_faces_train"), mixed, mixture=mixture, seed=options.seed, count=options.steps)
    model = train(source, options.steps, options.seed)
    finish(model, held_out_parts(mixed), options.seed, options.steps)


def finish(model: PatchGate, parts: tuple[Part, ...], seed: int, steps: int) -> None:
    """Calibrate and measure on the held-out parts, choose the operating point, export, write the card."""
    held_out = HeldOut.of(parts, [logits_on(model, part) for part in parts])
    line = fit_line(held_out.logits, held_out.labels, held_out.parts)
    export(CalibratedPatchGate(model, line), NAME, {"logit": "1", "patch_logits": "-1, -1"})
    metrics = held_out.metrics()
    point = OperatingPoint.choose(line.log_odds(held_out.logits), held_out.labels)
    log.info("%s; %s", headline_of(metrics), point)
    card = Card(
        name=NAME,
        task="P(deepfake) of one face crop from the texture of its 9x9 patches",
        trained_on="7,000 DFDC pairs, many-method stills of 100 sources, self-blended images; from scratch",
        headline=headline_of(metrics),
        data=("dfdc_faces_train", "manipulated_faces_train less held-out, subtle and confounded sources"),
        split="as frame_classifier: whole groups and whole sources held out, mesonet_faces_train not trained on; "
        "calibration fitted on the three held-out parts, cross-fitted by group for the figures",
        seed=seed,
        command=f"python -m training.patch --steps {steps} --seed {seed}",
        metrics=metrics,
        licence=LICENCE,
        limits=(
            "a weak witness by itself: it sees texture, never a face",
            "recompression and scaling remove much of what it looks at",
        ),
        inputs=INPUTS,
        outputs={
            "logit": "FP32 [n, 1], calibrated natural log-odds of a deepfake",
            "patch_logits": "FP32 [n, h, w], the same a patch of 9x9 pixels every second pixel",
        },
        extra={
            "parameters": sum(value.numel() for value in model.parameters()),
            "calibration": {"scale": line.scale, "bias": line.bias},
            "operating_point": point.to_card(),
            "method": "Tiny-LaDeDa (Cavia et al. 2024), trained directly on labels",
        },
    )
    write_card(card, REPOSITORY)


if __name__ == "__main__":
    main()
