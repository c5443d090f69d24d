"""The training run of the frame classifier: resumable, planned by time or by steps, averaged weights."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from training.frame.batches import BatchSource
from training.frame.network import FrameClassifier

log = logging.getLogger(__name__)
PREFETCHED = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is laid out. Its end is ``steps`` or, if that is 0, ``minutes`` of training."""

    minutes: float = 80.0
    steps: int = 0
    seed: int = 0
    early_size: int = 160
    """Input side in the first part of the run, pixels: more pictures a second."""
    size: int = 192
    early_share: float = 0.5
    rate: float = 4e-4
    weight_decay: float = 0.02
    warm_up: float = 0.03
    smoothing: float = 0.04
    """Label smoothing: targets are half of it away from 0 and 1."""
    averaging: float = 0.997
    """Decay of the weights' moving average, a step."""
    checkpoint_seconds: float = 150.0
    report_seconds: float = 900.0


@dataclass(slots=True)
class Progress:
    """Where a run stands: steps done and seconds of training behind it."""

    step: int = 0
    seconds: float = 0.0

    def share(self, plan: Plan) -> float:
        """Part of the plan that is done, 0 to 1."""
        done = self.step / plan.steps if plan.steps else self.seconds / (plan.minutes * 60)
        return min(done, 1.0)


def rate_factor(share: float, warm_up: float) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak."""
    if share < warm_up:
        return max(share / warm_up, 0.02)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up)))


class Run:
    """One training run with its checkpoint file.

    Args:
        model: to be trained, in place.
        plan: the layout.
        checkpoint: file to resume from and to write; None keeps nothing.
    """

    def __init__(self, model: FrameClassifier, plan: Plan, checkpoint: Path | None) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        self.average.size = plan.size
        self.progress = Progress()
        self._plan, self._checkpoint = plan, checkpoint
        self._optimiser = torch.optim.AdamW(_parameter_groups(model, plan), betas=(0.9, 0.99))
        if checkpoint is not None and checkpoint.is_file():
            self._resume(checkpoint)

    def train(self, source: BatchSource, report: Callable[[FrameClassifier], str] | None = None) -> FrameClassifier:
        """Train to the end of the plan.

        Args:
            source: makes batch ``i``.
            report: called now and then with the averaged model; its line is logged.

        Returns:
            The model with averaged weights, in evaluation mode.
        """
        saved = reported = began = time.monotonic()
        before = self.progress.seconds
        for crops, labels in batches_from(source, self.progress.step):
            if self.progress.share(self._plan) >= 1:
                break
            loss = self._step(crops, labels)
            now = time.monotonic()
            self.progress.seconds = before + now - began
            self.progress.step += 1
            if self.progress.step % 20 == 0:
                log.info("step %d, %.1f min, loss %.4f", self.progress.step, self.progress.seconds / 60, loss)
            if now - saved > self._plan.checkpoint_seconds:
                self.save()
                saved = now
            if report is not None and now - reported > self._plan.report_seconds:
                log.info("step %d: %s", self.progress.step, report(self.average))
                reported = time.monotonic()
                before -= reported - now
        self.save()
        return self.average

    def save(self) -> None:
        """Write the checkpoint, replacing the last one only once it is whole."""
        if self._checkpoint is None:
            return
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "progress": asdict(self.progress),
            "plan": asdict(self._plan),
        }
        unfinished = self._checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self._checkpoint)

    def _resume(self, checkpoint: Path) -> None:
        state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(**state["progress"])
        log.info("resumed at step %d", self.progress.step)

    def _step(self, crops: Tensor, labels: Tensor) -> float:
        plan, share = self._plan, self.progress.share(self._plan)
        torch.manual_seed(plan.seed * 1_000_003 + self.progress.step)
        self.model.train()
        self.model.size = plan.early_size if share < plan.early_share else plan.size
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * rate_factor(share, plan.warm_up)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model.training_logit(crops)
        targets = labels * (1 - plan.smoothing) + plan.smoothing / 2
        loss = functional.binary_cross_entropy_with_logits(logits.float(), targets)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self._optimiser.step()
        follow(self.average, self.model, decay_at(self.progress.step, plan.averaging))
        return float(loss.detach())


def decay_at(step: int, averaging: float) -> float:
    """Decay of the moving average: early on smaller, so that it forgets where it began."""
    return min(averaging, (1 + step) / (10 + step))


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an average of weights towards the model."""
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


@torch.inference_mode()
def logits_of(
    model: FrameClassifier, crop: Callable[[int], npt.NDArray[np.uint8]], rows: Sequence[int], batch: int = 32
) -> npt.NDArray[np.float64]:
    """Logit of each row's crop: float64 [rows]."""
    model.eval()
    found = []
    for start in range(0, len(rows), batch):
        crops = np.stack([crop(int(row)) for row in rows[start : start + batch]])
        found.append(model(torch.from_numpy(crops))[0][:, 0])
    return np.asarray(torch.cat(found).double().numpy())


def _parameter_groups(model: FrameClassifier, plan: Plan) -> list[dict[str, Any]]:
    """Matrices decay, biases and normalisation do not; the new unit learns five times as fast."""
    backbone = list(model.backbone.parameters())
    return [
        {
            "params": [value for value in backbone if value.ndim > 1],
            "peak": plan.rate,
            "weight_decay": plan.weight_decay,
        },
        {"params": [v for v in backbone if v.ndim <= 1], "peak": plan.rate, "weight_decay": 0.0},
        {"params": list(model.unit.parameters()), "peak": plan.rate * 5, "weight_decay": 0.0},
    ]


def batches_from(source: BatchSource, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from number ``start`` on, made ahead by one process so that the network need not wait."""
    loader = DataLoader(
        source,  # type: ignore[arg-type]
        batch_size=None,
        sampler=range(start, len(source)),
        num_workers=1,
        prefetch_factor=PREFETCHED,
        multiprocessing_context="fork",
    )
    return iter(loader)
