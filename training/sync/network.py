"""Two towers that put lips and voice into one space, and what is read from their agreement.

The idea is that of SyncNet (Chung and Zisserman 2016), "Out of time: automated lip sync in the wild", on
landmarks and log-mel rows instead of pixels: both sequences become unit vectors for each 40 ms slot, and
their cosine at a lag says how well the lips fit the voice that much later.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LARGEST_LAG = 15
"""Lags run from -15 to +15 slots of 40 ms; positive when the voice comes later than the lips."""
LAGS = 2 * LARGEST_LAG + 1
NEAR_LAG = 3
"""Lags up to this many slots count as in sync: recordings are often off by that much."""
WINDOW = 50
"""Slots of a window that is judged by itself: two seconds."""
HOP = 25
"""Slots from one window to the next: one second."""
QUIET = 1e-7
"""Added to the lips' mean square, in squared eye distances, so that a still face has a logarithm."""
EMBEDDING = 64
STATISTICS = 4


class Tower(nn.Module):
    """Sequence of feature rows to a sequence of unit vectors; sees about half a second around each slot."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.layers = nn.Sequential(
            nn.Conv1d(width, hidden, 1),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, hidden, 5, padding=2, padding_mode="replicate"),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv1d(hidden, hidden, 5, padding=2, padding_mode="replicate"),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv1d(hidden, hidden, 3, padding=1, padding_mode="replicate"),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, EMBEDDING, 1),
        )

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, slots, width] to unit vectors [batch, slots, EMBEDDING]."""
        encoded = self.layers(self.norm(rows.transpose(1, 2))).transpose(1, 2)
        return nn.functional.normalize(encoded, dim=-1, eps=1e-6)


class SyncNetwork(nn.Module):
    """Both towers; the similarity of every slot at every lag."""

    def __init__(self, motion_width: int, voice_width: int, hidden: int = 96) -> None:
        super().__init__()
        self.motion = Tower(motion_width, hidden)
        self.voice = Tower(voice_width, hidden)

    def forward(self, motion: Tensor, voice: Tensor) -> Tensor:
        """Similarity by slot and lag.

        Args:
            motion: [batch, slots, motion_width], centred on the clip's mean.
            voice: [batch, slots, voice_width], centred on the clip's mean.

        Returns:
            [batch, slots, LAGS], cosine in [-1, 1]; what would reach outside the clip is 0.
        """
        return lag_similarity(self.motion(motion), self.voice(voice))


def centred(rows: Tensor) -> Tensor:
    """Rows less their mean over the clip, so that neither a face's shape nor a microphone's gain matters."""
    return rows - rows.mean(dim=1, keepdim=True)


def lag_similarity(motion: Tensor, voice: Tensor) -> Tensor:
    """Cosines of unit vectors [batch, slots, size] at each lag: [batch, slots, LAGS]; 0 outside the clip."""
    padded = nn.functional.pad(voice, (0, 0, LARGEST_LAG, LARGEST_LAG))
    slots = motion.shape[1]
    shifted = [(motion * padded[:, lag : lag + slots]).sum(dim=-1) for lag in range(LAGS)]
    return torch.stack(shifted, dim=-1)


def lag_curve(similarity: Tensor) -> Tensor:
    """Mean similarity at each lag over the slots that have a partner there: [batch, LAGS].

    Args:
        similarity: [batch, slots, LAGS] with 0 where there is no partner.
    """
    partners = has_partner(similarity).sum(dim=1).clamp(min=1)
    return similarity.sum(dim=1) / partners


def has_partner(similarity: Tensor) -> Tensor:
    """1 where a slot has a partner at a lag, else 0: [1, slots, LAGS]."""
    row = torch.ones_like(similarity[:1, :, 0])
    padded = nn.functional.pad(row, (LARGEST_LAG, LARGEST_LAG))
    slots = similarity.shape[1]
    return torch.stack([padded[:, lag : lag + slots] for lag in range(LAGS)], dim=-1)


def window_curves(similarity: Tensor) -> Tensor:
    """Lag curves of windows of WINDOW slots, one every HOP: [batch, windows, LAGS]."""
    pool = nn.AvgPool1d(WINDOW, stride=HOP)
    share = pool(has_partner(similarity).transpose(1, 2)).clamp(min=1 / WINDOW)
    return (pool(similarity.transpose(1, 2)) / share).transpose(1, 2)


def window_motion(motion: Tensor) -> Tensor:
    """Mean square of centred lip positions in the same windows: [batch, windows]."""
    power = (motion**2).mean(dim=2, keepdim=True).transpose(1, 2)
    return nn.functional.avg_pool1d(power, WINDOW, stride=HOP)[:, 0]


def statistics(curve: Tensor, power: Tensor) -> Tensor:
    """What tells sound in sync from sound out of sync: [..., STATISTICS].

    Args:
        curve: [..., LAGS].
        power: [...], mean square of centred lip positions.

    Returns:
        The best similarity near lag 0; how far it rises above the mean of the other lags; how far it rises
        above the best of the other lags; and the logarithm of how much the lips move.
    """
    near = curve[..., LARGEST_LAG - NEAR_LAG : LARGEST_LAG + NEAR_LAG + 1].amax(dim=-1)
    early, late = curve[..., : LARGEST_LAG - NEAR_LAG - 1], curve[..., LARGEST_LAG + NEAR_LAG + 2 :]
    far = torch.cat([early, late], dim=-1)
    activity = torch.log(power + QUIET)
    return torch.stack([near, near - far.mean(dim=-1), near - far.amax(dim=-1), activity], dim=-1)


class ServedSync(nn.Module):
    """The whole of what is served: centring, towers, lag curves and calibration.

    Args:
        network: fitted towers.
        clip: weights [STATISTICS] and constant of P(out of sync) for a whole clip.
        window: the same for one window.
    """

    def __init__(self, network: SyncNetwork, clip: tuple[Tensor, Tensor], window: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.network = network
        self.clip_weights, self.clip_constant = clip
        self.window_weights, self.window_constant = window

    def forward(self, motion: Tensor, voice: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lips [batch, slots, width] and voice [batch, slots, width], at least WINDOW slots.

        Returns:
            ``logit`` [batch, 1], calibrated log-odds of being out of sync; ``curve`` [batch, LAGS], mean
            cosine at each lag; ``window_logit`` [batch, windows], the same log-odds by window.
        """
        lips = centred(motion)
        similarity = lag_similarity(self.network.motion(lips), self.network.voice(centred(voice)))
        curve = lag_curve(similarity)
        whole = statistics(curve, (lips**2).mean(dim=(1, 2))) @ self.clip_weights + self.clip_constant
        parts = statistics(window_curves(similarity), window_motion(lips))
        return whole[:, None], curve, parts @ self.window_weights + self.window_constant
