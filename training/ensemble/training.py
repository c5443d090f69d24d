"""One training run of all members at once, over the very same batches; resumable."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.frame.batches import BatchSource
from training.frame.training import Plan, Progress, batches_from, decay_at, follow, rate_factor

log = logging.getLogger(__name__)
AUTOCAST = frozenset({"resnet18", "meso4", "mesoinception4"})
"""Members that a CPU trains faster in bfloat16."""
RATES = {"meso4": 0.25, "mesoinception4": 0.25}
"""Part of the plan's rate for members that start from weights that know something."""
EVERY = {"meso4": 4, "mesoinception4": 4}
"""Members that see one batch in so many, because one costs them more than the others."""


class JointRun:
    """A training run with its checkpoint file.

    Args:
        members: networks by name, to be trained in place.
        plan: the layout; sizes in it do not matter here.
        checkpoint: file to resume from and to write; None keeps nothing.
    """

    def __init__(self, members: nn.ModuleDict, plan: Plan, checkpoint: Path | None) -> None:
        self.members = members
        self.average = cast("nn.ModuleDict", copy.deepcopy(members).eval())
        self.progress = Progress()
        self._plan, self._checkpoint = plan, checkpoint
        groups = [{"params": member.parameters(), "part": RATES.get(name, 1.0)} for name, member in members.items()]
        self._optimiser = torch.optim.AdamW(groups, lr=plan.rate, weight_decay=plan.weight_decay)
        if checkpoint is not None and checkpoint.is_file():
            state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
            self.members.load_state_dict(state["members"])
            self.average.load_state_dict(state["average"])
            self._optimiser.load_state_dict(state["optimiser"])
            self.progress = Progress(**state["progress"])
            log.info("resumed at step %d", self.progress.step)

    def train(self, source: BatchSource) -> nn.ModuleDict:
        """Train to the end of the plan; answers the members with averaged weights, in evaluation mode."""
        saved = began = time.monotonic()
        before = self.progress.seconds
        recent: dict[str, float] = {}
        for crops, labels in batches_from(source, self.progress.step):
            if self.progress.share(self._plan) >= 1:
                break
            for name, loss in self._step(crops, labels).items():
                recent[name] = 0.97 * recent.get(name, loss) + 0.03 * loss
            now = time.monotonic()
            self.progress.seconds = before + now - began
            self.progress.step += 1
            if self.progress.step % 50 == 0:
                shown = ", ".join(f"{name} {loss:.3f}" for name, loss in recent.items())
                log.info("step %d, %.1f min, %s", self.progress.step, self.progress.seconds / 60, shown)
            if now - saved > self._plan.checkpoint_seconds:
                self.save()
                saved = now
        self.save()
        return self.average

    def save(self) -> None:
        """Write the checkpoint, replacing the last one only once it is whole."""
        if self._checkpoint is None:
            return
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "members": self.members.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "progress": asdict(self.progress),
        }
        unfinished = self._checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self._checkpoint)

    def _step(self, crops: Tensor, labels: Tensor) -> dict[str, float]:
        plan = self._plan
        torch.manual_seed(plan.seed * 1_000_003 + self.progress.step)
        self.members.train()
        for group in self._optimiser.param_groups:
            group["lr"] = group["part"] * plan.rate * rate_factor(self.progress.share(plan), plan.warm_up)
        targets = labels * (1 - plan.smoothing) + plan.smoothing / 2
        self._optimiser.zero_grad(set_to_none=True)
        losses: dict[str, float] = {}
        for name, member in self.members.items():
            if self.progress.step % EVERY.get(name, 1):
                continue
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name in AUTOCAST):
                logits = member(crops)[:, 0]
            loss = functional.binary_cross_entropy_with_logits(logits.float(), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(member.parameters(), 5.0)
            losses[name] = float(loss.detach())
        self._optimiser.step()  # members without gradients stay where they are
        follow(self.average, self.members, decay_at(self.progress.step, plan.averaging))
        return losses
