"""Fits the two towers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from training.sync.alignment import aligned
from training.sync.data import Batch, Sampler, TalkingClip
from training.sync.network import LAGS, LARGEST_LAG, SyncNetwork, centred

TEMPERATURE = 0.07
HARDEST_NORM = 5.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn."""

    steps: int = 400
    batch: int = 24
    rate: float = 2e-3
    decay: float = 2e-2


def fit(clips: Sequence[TalkingClip], seed: int, schedule: Schedule | None = None) -> SyncNetwork:
    """Train the towers on segments of clips that were brought to one clock first.

    Two tasks at once: find lag 0 among LAGS of a segment's own voice, and find its own voice among those of
    other groups.

    Args:
        clips: in which lips and voice belong together, of several groups.
        seed: of initial weights, segments and augmentation.
        schedule: how long and how fast.

    Returns:
        The network, in evaluation mode.
    """
    plan = schedule or Schedule()
    torch.manual_seed(seed)
    moved = aligned(clips)
    sampler = Sampler(moved, np.random.default_rng(seed))
    network = SyncNetwork(clips[0].motion.shape[1], clips[0].voice.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=plan.decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.steps)
    network.train()
    for _ in range(plan.steps):
        loss = batch_loss(network, sampler.batch(plan.batch))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), HARDEST_NORM)
        optimizer.step()
        rates.step()
    return network.eval()


def batch_loss(network: SyncNetwork, batch: Batch) -> Tensor:
    """Cross-entropy of the lag and of the owner, both at TEMPERATURE."""
    motion = network.motion(centred(torch.from_numpy(batch.motion)))
    voice = network.voice(centred(torch.from_numpy(batch.voice)))
    slots = motion.shape[1]
    products = motion @ voice.transpose(1, 2)
    curve = torch.stack([products.diagonal(lag, 1, 2)[:, :slots].mean(-1) for lag in range(LAGS)], dim=1)
    middle = torch.full((len(curve),), LARGEST_LAG)
    lag_loss = nn.functional.cross_entropy(curve / TEMPERATURE, middle, label_smoothing=0.1)
    own = voice[:, LARGEST_LAG : LARGEST_LAG + slots]
    across = torch.einsum("ate,bte->ab", motion, own) / slots / TEMPERATURE
    same = torch.from_numpy(batch.groups[:, None] == batch.groups[None, :])
    across = across.masked_fill(same & ~torch.eye(len(across), dtype=torch.bool), -1e4)
    truth = torch.arange(len(across))
    owner_loss = nn.functional.cross_entropy(across, truth) + nn.functional.cross_entropy(across.T, truth)
    return lag_loss + owner_loss / 2
