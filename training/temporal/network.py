"""The temporal network: linear heads on statistics of texture and motion rows, BiLSTMs over rows and embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from services.visual.expression import CHANNELS
from services.visual.residuals import WIDTH

Floats = npt.NDArray[np.float32]

PAIRS = (
    *(("right_lids", "left_lids"), ("right_gaze_across", "left_gaze_across"), ("right_gaze_down", "left_gaze_down")),
    *(("right_brow", "left_brow"), ("mouth_open", "jaw"), ("mouth_open", "mouth_width"), ("head_across", "head_yaw")),
    *(("head_down", "head_pitch"), ("head_roll", "head_across"), ("right_brow", "head_pitch")),
    *(("right_lids", "head_pitch"), ("right_lids", "right_gaze_down"), ("mouth_open", "head_pitch")),
    *(("mouth_open", "head_down"), ("jaw", "head_down")),
)
"""Channels that a living face moves together, or apart."""
CLIP = 4.0
SMALLEST_DEVIATION = 1e-6
TEXTURE_WIDTH = 2 * WIDTH
MOTION_WIDTH = 2 * len(PAIRS)


class TextureStatistics(nn.Module):
    """Mean and log deviation over time of texture rows; NaN, a region that was not seen, is left out.

    float32 [N, R, 123] → [N, 246]; NaN where a region was never seen.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """See the class."""
        known = ~torch.isnan(rows)
        values = torch.where(known, rows, torch.zeros_like(rows))
        count = known.to(rows.dtype).sum(dim=1, keepdim=True)
        mean = values.sum(dim=1, keepdim=True) / count
        spread = torch.where(known, values - mean, torch.zeros_like(rows))
        deviation = torch.sqrt((spread * spread).sum(dim=1, keepdim=True) / count)
        return torch.cat([mean, torch.log(deviation + 0.02)], dim=2).squeeze(1)


class MotionStatistics(nn.Module):
    """Which parts of the face move together: correlation of each pair of channels, in steps and in positions.

    How much and how fast a face moves was tried as well and carried nothing over to unseen sources.

    float32 [N, T, 17], T ≥ 16 → [N, 30].
    """

    first: Tensor
    second: Tensor

    def __init__(self) -> None:
        super().__init__()
        places = {name: place for place, name in enumerate(CHANNELS)}
        self.register_buffer("first", torch.tensor([places[pair[0]] for pair in PAIRS]))
        self.register_buffer("second", torch.tensor([places[pair[1]] for pair in PAIRS]))

    def forward(self, rows: Tensor) -> Tensor:
        """See the class."""
        return torch.cat([self._together(rows[:, 1:] - rows[:, :-1]), self._together(rows)], dim=1)

    def _together(self, values: Tensor) -> Tensor:
        centred = values - values.mean(dim=1, keepdim=True)
        one, other = centred[:, :, self.first], centred[:, :, self.second]
        scale = torch.sqrt((one * one).mean(dim=1) * (other * other).mean(dim=1))
        return (one * other).mean(dim=1) / (scale + 1e-9)


class Standard(nn.Module):
    """Standardise and clip to ±4; NaN becomes the mean."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: npt.ArrayLike, deviation: npt.ArrayLike) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(np.asarray(mean), dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(np.asarray(deviation), dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """Values [..., width] to the same shape."""
        known = torch.where(torch.isnan(values), self.mean, values)
        return torch.clamp((known - self.mean) / self.deviation, -CLIP, CLIP)


class LinearHead(nn.Module):
    """Standardised features [N, width] to a score [N, 1]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, standard: Standard, weight: npt.ArrayLike, bias: float) -> None:
        super().__init__()
        self.standard = standard
        self.register_buffer("weight", torch.tensor(np.asarray(weight), dtype=torch.float32)[:, None])
        self.register_buffer("bias", torch.tensor([bias], dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return self.standard(features) @ self.weight + self.bias


class SequenceNet(nn.Module):
    """A BiLSTM over rows, read at its mean over time (Graves and Schmidhuber 2005).

    Motion rows are read as steps from frame to frame, so that where a face is tells nothing.

    Args:
        standard: of rows, or of steps.
        width: numbers a row.
        steps: take differences of consecutive rows first.
        hidden: units a direction.
    """

    def __init__(self, standard: Standard, width: int, *, steps: bool, hidden: int = 16) -> None:
        super().__init__()
        self.standard = standard
        self.steps = steps
        self.squeeze = nn.Linear(width, hidden)
        self.sequence = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(2 * hidden, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [N, T, width] to a score [N, 1]."""
        if self.steps:
            rows = rows[:, 1:] - rows[:, :-1]
        inputs = self.drop(torch.tanh(self.squeeze(self.drop(self.standard(rows)))))
        return self.out(self.drop(self.sequence(inputs)[0].mean(dim=1)))


class EmbeddingStatistics(nn.Module):
    """How much each number of the embedding changes from crop to crop: float32 [N, S, d] → [N, d], logarithms."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """See the class."""
        return torch.log((embeddings[:, 1:] - embeddings[:, :-1]).abs().mean(dim=1) + 0.02)


class EmbeddingSteps(nn.Module):
    """Changes of the embedding from crop to crop along some axes: float32 [N, S, d] → [N, S - 1, axes].

    Args:
        axes: float32 [d, axes].
    """

    axes: Tensor

    def __init__(self, axes: npt.ArrayLike) -> None:
        super().__init__()
        self.register_buffer("axes", torch.tensor(np.asarray(axes), dtype=torch.float32))

    def forward(self, embeddings: Tensor) -> Tensor:
        """See the class."""
        return (embeddings[:, 1:] - embeddings[:, :-1]) @ self.axes


class EmbeddingNet(nn.Module):
    """What is said of embeddings [N, S, d]: a score [N, 1], 0 where they are NaN.

    Only changes are read, never the embedding itself, so that whose face it is tells nothing.

    Args:
        reader: what is read of them.
        head: scores that.
        width: d.
    """

    def __init__(self, reader: nn.Module, head: nn.Module, width: int) -> None:
        super().__init__()
        self.reader, self.head, self.width = reader, head, width

    def forward(self, embeddings: Tensor) -> Tensor:
        """See the class."""
        score = self.head(self.reader(embeddings))
        assert isinstance(score, Tensor)
        return torch.where(torch.isnan(embeddings[:, :1, 0]), torch.zeros_like(score), score)


class TemporalNetwork(nn.Module):
    """Weighted sum of members' scores, as calibrated log-odds: [N, 1].

    It reads texture [N, R, 123], motion [N, T, 17] and embeddings [N, S, d].

    Args:
        texture: members that read texture statistics (LinearHead) or rows (SequenceNet), with their weights.
        motion: the same for motion.
        embeddings: members that read embeddings.
        offset: added to the sum.
    """

    def __init__(
        self,
        texture: Sequence[tuple[nn.Module, float]],
        motion: Sequence[tuple[nn.Module, float]],
        embeddings: Sequence[tuple[EmbeddingNet, float]],
        offset: float,
    ) -> None:
        super().__init__()
        self.texture_statistics, self.motion_statistics = TextureStatistics(), MotionStatistics()
        self.texture = nn.ModuleList(member for member, _ in texture)
        self.motion = nn.ModuleList(member for member, _ in motion)
        self.embeddings = nn.ModuleList(member for member, _ in embeddings)
        self.embedding_width = embeddings[0][0].width
        self.weights = [weight for _, weight in itertools.chain(texture, motion, embeddings)]
        self.offset = offset

    def forward(self, texture: Tensor, motion: Tensor, embeddings: Tensor) -> Tensor:
        """See the class."""
        of_texture, of_motion = self.texture_statistics(texture), self.motion_statistics(motion)
        scores = [
            *(member(of_texture if isinstance(member, LinearHead) else texture) for member in self.texture),
            *(member(of_motion if isinstance(member, LinearHead) else motion) for member in self.motion),
            *(member(embeddings) for member in self.embeddings),
        ]
        total = sum(weight * score for weight, score in zip(self.weights, scores, strict=True))
        assert isinstance(total, Tensor)
        return total + self.offset


def statistics(module: nn.Module, rows: Floats) -> Floats:
    """Statistics of one clip's rows [n, width] by the graph's own code: float32 [features]."""
    with torch.no_grad():
        return np.asarray(module(torch.from_numpy(rows)[None])[0].numpy(), np.float32)
