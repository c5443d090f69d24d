"""Fits the two towers and the calibration on top of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.sync.data import Batch, Sampler, TalkingClip
from training.sync.network import LAGS, LARGEST_LAG, SyncNetwork, centred, lag_curve, lag_similarity

TEMPERATURE = 0.07
PLAUSIBLE_LAG = 8
"""Where the lag of a source is unknown, it is looked for up to this many slots."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn."""

    steps: int = 600
    batch: int = 32
    rate: float = 2e-3
    decay: float = 1e-2
    known_only: float = 0.4
    """Share of the steps after which clips of unknown lag join."""


def fit(clips: Sequence[TalkingClip], seed: int, schedule: Schedule | None = None) -> SyncNetwork:
    """Train the towers on segments of clips.

    Two tasks at once: find the lag of a segment's own voice among LAGS, and find its own voice among those of
    other groups. Clips of unknown lag join later, at the lag that the towers then find for them.

    Args:
        clips: at least two groups with known lag.
        seed: of initial weights, segments and augmentation.
        schedule: how long and how fast.

    Returns:
        The network, in evaluation mode.
    """
    plan = schedule or Schedule()
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = SyncNetwork(clips[0].motion.shape[1], clips[0].voice.shape[1])
    known = [clip for clip in clips if clip.lag_known]
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=plan.decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.steps)
    sampler, pool = Sampler(known, random), known
    network.train()
    for step in range(plan.steps):
        if step == int(plan.steps * plan.known_only) and len(known) < len(clips):
            sampler, pool = Sampler(clips, random), list(clips)
        loss = batch_loss(network, sampler.batch(plan.batch), pool)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        rates.step()
    return network.eval()


def batch_loss(network: SyncNetwork, batch: Batch, pool: Sequence[TalkingClip]) -> Tensor:
    """Cross-entropy of the lag and of the owner, both at TEMPERATURE."""
    motion = network.motion(centred(torch.from_numpy(batch.motion)))
    voice = network.voice(centred(torch.from_numpy(batch.voice)))
    slots = motion.shape[1]
    curve = torch.stack([(motion * voice[:, lag : lag + slots]).sum(-1).mean(-1) for lag in range(LAGS)], dim=1)
    targets = _target_lags(curve.detach(), [pool[owner].lag_known for owner in batch.owners])
    lag_loss = nn.functional.cross_entropy(curve / TEMPERATURE, targets, label_smoothing=0.05)
    rows = torch.arange(slots)[None, :] + targets[:, None]
    own = voice[torch.arange(len(voice))[:, None], rows]
    across = torch.einsum("ate,bte->ab", motion, own) / slots / TEMPERATURE
    groups = [pool[owner].group for owner in batch.owners]
    same = torch.tensor([[one == other for other in groups] for one in groups])
    across = across.masked_fill(same & ~torch.eye(len(groups), dtype=torch.bool), -1e4)
    truth = torch.arange(len(groups))
    owner_loss = nn.functional.cross_entropy(across, truth) + nn.functional.cross_entropy(across.T, truth)
    return lag_loss + owner_loss / 2


def _target_lags(curve: Tensor, known: Sequence[bool]) -> Tensor:
    """Index of the true lag: the middle, or the best plausible one where the source is off by some slots."""
    low, high = LARGEST_LAG - PLAUSIBLE_LAG, LARGEST_LAG + PLAUSIBLE_LAG + 1
    found = curve[:, low:high].argmax(dim=1) + low
    return torch.where(torch.tensor(known), torch.full_like(found, LARGEST_LAG), found)


def curve_of(
    network: SyncNetwork, motion: npt.NDArray[np.float32], voice: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """The lag curve of one whole clip: float64 [LAGS]."""
    with torch.inference_mode():
        lips = centred(torch.from_numpy(motion)[None])
        similarity = lag_similarity(network.motion(lips), network.voice(centred(torch.from_numpy(voice)[None])))
        return lag_curve(similarity)[0].double().numpy()
