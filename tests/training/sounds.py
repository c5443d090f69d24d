"""Sound that tests of the speech branch learn from and listen to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from services.audio.preparation import prepare

Sound = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def sound(seed: int, seconds: float = 2.0, *, buzzing: bool = False) -> Sound:
    """Coloured noise under a syllable-like envelope, with or without a pulse train in it."""
    rng = np.random.default_rng(seed)
    n = round(seconds * 16_000)
    spectrum = np.fft.rfft(rng.standard_normal(n)) * (1 + np.arange(n // 2 + 1) / 200.0) ** -1.0
    envelope = 0.2 + np.abs(np.sin(2 * np.pi * 1.7 * np.arange(n) / 16_000 + rng.uniform(0, 3)))
    pulses = (np.arange(n) % 133 == 0) * (0.5 if buzzing else 0.0)
    return prepare(((np.fft.irfft(spectrum, n) + pulses) * envelope).astype(np.float32))
