"""The fixed filter bank in front of RawNet2 and AASIST (sinc layers: Ravanelli and Bengio 2018).

Band-pass filters between neighbouring points of the mel scale, cut to length by a Hamming window. They are
not trained, and published weights do not hold them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLE_RATE = 16_000


def band_pass_filters(count: int, taps: int) -> torch.Tensor:
    """Impulse responses of ``count`` adjoining bands from 0 Hz to half the sample rate.

    Args:
        count: number of filters.
        taps: length; made odd by adding one.

    Returns:
        float32 [count, 1, taps or taps + 1].
    """
    length = taps + 1 - taps % 2
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, count + 1) / 2595) - 1)
    # A low-pass at f is (2f/r) sinc(2ft/r); the difference of two is a band.
    time = np.arange(length) - (length - 1) / 2
    low_passes = 2 * edges[:, None] / SAMPLE_RATE * np.sinc(2 * edges[:, None] * time / SAMPLE_RATE)
    filters = np.hamming(length) * np.diff(low_passes, axis=0)
    return torch.from_numpy(filters[:, None].astype(np.float32))


class SincFilters(nn.Module):
    """Convolution of a waveform [N, T] with the bank: [N, filters, T - taps + 1]."""

    def __init__(self, count: int, taps: int) -> None:
        super().__init__()
        self.register_buffer("filters", band_pass_filters(count, taps), persistent=False)
        self.filters: Tensor

    def forward(self, samples: Tensor) -> Tensor:
        """See the class."""
        return functional.conv1d(samples[:, None], self.filters)
