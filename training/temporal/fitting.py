"""Fits the members of the temporal network: linear heads on statistics, BiLSTMs on rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from torch import nn

from training.temporal.corpus import ORIGINAL, ClipRows, is_forged
from training.temporal.network import (
    CLIP,
    SMALLEST_DEVIATION,
    EmbeddingNet,
    EmbeddingStatistics,
    EmbeddingSteps,
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
EMBEDDING_PENALTY = 1e-4
"""Inverse strengths of the L2 penalties."""
EMBEDDING_AXES = 16
"""Axes along which changes of the embedding are read: what a hundred clips can bear."""
EMBEDDING_STEPS, EMBEDDING_WINDOW, EMBEDDING_DECAY = 150, 16, 0.1
"""Batches, rows a window, and decay of the weights: there is one short example a clip."""


class Kind(StrEnum):
    """Kinds of members."""

    TEXTURE_LINEAR = "texture_linear"
    MOTION_LINEAR = "motion_linear"
    EMBEDDING_LINEAR = "embedding_linear"
    TEXTURE_BILSTM = "texture_bilstm"
    MOTION_BILSTM = "motion_bilstm"
    EMBEDDING_BILSTM = "embedding_bilstm"

    @property
    def reads_texture(self) -> bool:
        """Whether it reads texture."""
        return self in (Kind.TEXTURE_LINEAR, Kind.TEXTURE_BILSTM)

    @property
    def reads_embeddings(self) -> bool:
        """Whether it reads embeddings."""
        return self in (Kind.EMBEDDING_LINEAR, Kind.EMBEDDING_BILSTM)


@dataclass(frozen=True, slots=True)
class Sequences:
    """How the BiLSTMs learn."""

    steps: int = 250
    batch: int = 24
    window: int = 48
    rate: float = 3e-3
    decay: float = 1e-2
    members: int = 2
    embedding_members: int = 4
    """One sees a single example a clip, so that chance has more of a part in it."""


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


def embedding_examples(clips: Sequence[ClipRows]) -> list[Example]:
    """The embeddings of the clips that have them; no recipe forges them."""
    return [Example(clip.embeddings, clip.fake) for clip in clips if clip.embeddings is not None]


def fit_embedding_linear(examples: Sequence[Example]) -> EmbeddingNet:
    """Logistic regression on how much embeddings change."""
    module = EmbeddingStatistics()
    return EmbeddingNet(module, fit_linear(examples, module, EMBEDDING_PENALTY), examples[0].rows.shape[1]).eval()


def fit_embedding_sequence(examples: Sequence[Example], *, seed: int, plan: Sequences) -> EmbeddingNet:
    """A BiLSTM over steps along the axes in which embeddings change most from crop to crop."""
    changes = np.concatenate([np.diff(example.rows, axis=0) for example in examples])
    width = changes.shape[1]
    _, axes = eigh(changes.T @ changes, subset_by_index=(max(width - EMBEDDING_AXES, 0), width - 1))
    steps = EmbeddingSteps(axes)
    rows = [replace(example, rows=statistics(steps, example.rows)) for example in examples]
    return EmbeddingNet(steps, fit_sequence(rows, steps=False, seed=seed, plan=plan), width).eval()


@dataclass(frozen=True, slots=True)
class Member:
    """One part of the network: its kind, which of several of that kind, and what it computes."""

    kind: Kind
    number: int
    model: nn.Module

    def score(self, clip: ClipRows) -> float:
        """Uncalibrated log-odds of one clip's original rows; 0 where its embeddings are read and not known."""
        if self.kind.reads_embeddings:
            rows = clip.embeddings
        else:
            rows = clip.texture[ORIGINAL] if self.kind.reads_texture else clip.motion
        if rows is None:
            return 0.0
        if isinstance(self.model, LinearHead):
            rows = statistics(TextureStatistics() if self.kind.reads_texture else MotionStatistics(), rows)
        with torch.no_grad():
            return float(self.model(torch.from_numpy(rows)[None]))


def fit_members(clips: Sequence[ClipRows], seed: int, plan: Sequences, kinds: Collection[str]) -> list[Member]:
    """Members of some kinds; of BiLSTMs several each.

    Args:
        clips: what to learn from.
        seed: of the BiLSTMs.
        plan: how they learn.
        kinds: which.
    """
    members = []
    for kind in sorted(Kind(name) for name in kinds):
        for number in range(_count(kind, plan)):
            model = _fit_member(clips, kind, seed + number, plan)
            members.append(Member(kind, number, model))
    return members


def _count(kind: Kind, plan: Sequences) -> int:
    if kind is Kind.EMBEDDING_BILSTM:
        return plan.embedding_members
    return plan.members if kind in (Kind.TEXTURE_BILSTM, Kind.MOTION_BILSTM) else 1


def _fit_member(clips: Sequence[ClipRows], kind: Kind, seed: int, plan: Sequences) -> nn.Module:
    match kind:
        case Kind.TEXTURE_LINEAR:
            return fit_linear(texture_examples(clips), TextureStatistics(), TEXTURE_PENALTY)
        case Kind.MOTION_LINEAR:
            return fit_linear(motion_examples(clips), MotionStatistics(), MOTION_PENALTY)
        case Kind.EMBEDDING_LINEAR:
            return fit_embedding_linear(embedding_examples(clips))
        case Kind.TEXTURE_BILSTM:
            return fit_sequence(texture_examples(clips), steps=False, seed=seed, plan=plan)
        case Kind.MOTION_BILSTM:
            return fit_sequence(motion_examples(clips), steps=True, seed=seed, plan=plan)
        case Kind.EMBEDDING_BILSTM:
            own = replace(
                plan,
                steps=min(plan.steps, EMBEDDING_STEPS),
                window=min(plan.window, EMBEDDING_WINDOW),
                decay=EMBEDDING_DECAY,
            )
            return fit_embedding_sequence(embedding_examples(clips), seed=seed, plan=own)
