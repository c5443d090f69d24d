"""Fits the members of the temporal network: linear heads on statistics, BiLSTMs on rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from training.temporal.corpus import ORIGINAL, ClipRows, is_forged
from training.temporal.network import (
    CLIP,
    SMALLEST_DEVIATION,
    LinearHead,
    MotionStatistics,
    SequenceNet,
    Standard,
    TextureStatistics,
    statistics,
)

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
TEXTURE_PENALTY = 3e-4
MOTION_PENALTY = 3e-3
"""Inverse strengths of the L2 penalties."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """How the BiLSTMs learn."""

    steps: int = 250
    batch: int = 24
    window: int = 48
    rate: float = 3e-3
    decay: float = 1e-2
    members: int = 2


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn from: rows and the label they carry."""

    rows: Rows
    fake: int


def texture_examples(clips: Sequence[ClipRows]) -> list[Example]:
    """Originals, copies and forgeries; a forgery differs from the real rows beside it in nothing but the trace."""
    return [
        Example(rows, max(clip.fake, int(is_forged(variant))))
        for clip in clips
        for variant, rows in clip.texture.items()
    ]


def motion_examples(clips: Sequence[ClipRows]) -> list[Example]:
    """The motion of all clips; no recipe forges motion."""
    return [Example(clip.motion, clip.fake) for clip in clips]


def example_weights(examples: Sequence[Example]) -> Floats:
    """Both labels weigh the same, mean 1.

    Evening out sources as well was tried: it lets the many sources of a single clip speak for their labels.
    """
    fake = np.array([example.fake for example in examples])
    share = np.array([np.mean(fake == label) for label in (0, 1)])
    return np.asarray(0.5 / share[fake])


def fit_linear(examples: Sequence[Example], module: nn.Module, penalty: float) -> LinearHead:
    """Logistic regression on the statistics of rows, standardised and clipped."""
    features = np.stack([statistics(module, example.rows) for example in examples]).astype(np.float64)
    fake, weights = np.array([example.fake for example in examples]), example_weights(examples)
    mean, deviation = _moments(features, weights)
    standard = np.clip((np.where(np.isnan(features), mean, features) - mean) / deviation, -CLIP, CLIP)
    model = LogisticRegression(C=penalty, max_iter=2000).fit(standard, fake, sample_weight=weights)
    return LinearHead(Standard(mean, deviation), model.coef_[0], float(model.intercept_[0])).eval()


def fit_sequence(examples: Sequence[Example], *, steps: bool, seed: int, plan: Sequences) -> SequenceNet:
    """A BiLSTM on random windows of rows, drawn by weight."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    rows = [np.diff(example.rows, axis=0) if steps else example.rows for example in examples]
    mean, deviation = _moments(np.concatenate(rows).astype(np.float64), np.ones(sum(map(len, rows))))
    width = rows[0].shape[1]
    network = SequenceNet(Standard(mean, deviation), width, steps=False)
    weights = example_weights(examples)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=plan.decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.steps)
    network.train()
    for _ in range(plan.steps):
        drawn = random.choice(len(rows), plan.batch, p=weights / weights.sum())
        batch = torch.from_numpy(np.stack([_window(rows[place], plan.window, random) for place in drawn]))
        fake = torch.tensor([[float(examples[place].fake)] for place in drawn])
        loss = nn.functional.binary_cross_entropy_with_logits(network(batch), fake * 0.9 + 0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rates.step()
    network.steps = steps
    return network.eval()


def _window(rows: Rows, length: int, random: np.random.Generator) -> Rows:
    """Consecutive rows; short sequences begin again."""
    if len(rows) < length:
        rows = np.concatenate([rows] * -(-length // len(rows)))
    start = int(random.integers(len(rows) - length + 1))
    return rows[start : start + length]


def _moments(features: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted mean and deviation of each column; NaN is left out."""
    known = ~np.isnan(features)
    values = np.where(known, features, 0)
    total = np.maximum((known * weights[:, None]).sum(axis=0), 1e-9)
    mean = (values * weights[:, None]).sum(axis=0) / total
    spread = np.where(known, values - mean, 0) ** 2
    return mean, np.sqrt((spread * weights[:, None]).sum(axis=0) / total) + SMALLEST_DEVIATION


@dataclass(frozen=True, slots=True)
class Member:
    """One part of the network: what it reads and how."""

    name: str
    reads_texture: bool
    model: nn.Module

    def score(self, clip: ClipRows) -> float:
        """Uncalibrated log-odds of one clip's original rows."""
        rows = clip.texture[ORIGINAL] if self.reads_texture else clip.motion
        if isinstance(self.model, LinearHead):
            rows = statistics(TextureStatistics() if self.reads_texture else MotionStatistics(), rows)
        with torch.no_grad():
            return float(self.model(torch.from_numpy(rows)[None]))


def fit_members(clips: Sequence[ClipRows], seed: int, plan: Sequences | None) -> list[Member]:
    """All members; the BiLSTMs only with a plan.

    Args:
        clips: what to learn from.
        seed: of the BiLSTMs.
        plan: how they learn.
    """
    texture, motion = texture_examples(clips), motion_examples(clips)
    members = [
        Member("texture_linear", True, fit_linear(texture, TextureStatistics(), TEXTURE_PENALTY)),  # noqa: FBT003
        Member("motion_linear", False, fit_linear(motion, MotionStatistics(), MOTION_PENALTY)),  # noqa: FBT003
    ]
    for number in range(plan.members if plan is not None else 0):
        assert plan is not None
        members.append(
            Member(f"texture_bilstm/{number}", True, fit_sequence(texture, steps=False, seed=seed + number, plan=plan))  # noqa: FBT003
        )
        members.append(
            Member(f"motion_bilstm/{number}", False, fit_sequence(motion, steps=True, seed=seed + number, plan=plan))  # noqa: FBT003
        )
    return members
