from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from services.audio.pipeline import AudioPipeline, WindowPlan
from services.common.inference import EmbeddedEngine
from services.common.media import SAMPLE_RATE
from services.common.models import ModelRepository

Sound = npt.NDArray[np.float32]
MODELS = Path(__file__).parents[2] / "model_repository"
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))


def babble(seconds: float, seed: int = 0) -> Sound:
    """Vowels after Peterson and Barney (1952): a gliding pulse train through changing resonances."""
    rng = np.random.default_rng(seed)
    n = round(seconds * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6)) + 8 * np.sin(2 * np.pi * 2.3 * time)
    pulses = np.diff(np.floor(np.cumsum(pitch) / SAMPLE_RATE), prepend=0.0)
    syllable = round(0.22 * SAMPLE_RATE)
    sound = np.zeros(n)
    for start in range(0, n, syllable):
        part = pulses[start : start + syllable]
        spectrum = np.fft.rfft(part, 2 * syllable)
        hertz = np.fft.rfftfreq(2 * syllable, 1 / SAMPLE_RATE)
        for formant in VOWELS[rng.integers(len(VOWELS))]:
            spectrum = spectrum / (1 - (hertz / formant) ** 2 + 1j * hertz * 90 / formant**2)
        sound[start : start + syllable] = np.fft.irfft(spectrum)[: part.size] * np.hanning(part.size + 2)[1:-1]
    sound = np.diff(sound, prepend=0.0)  # what lips radiate
    sound += 1e-4 * np.abs(sound).max() * rng.standard_normal(n)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


@pytest.fixture(scope="session")
def speech() -> Callable[[float], Sound]:
    return babble


@pytest.fixture(scope="session")
def repository() -> ModelRepository:
    return ModelRepository(MODELS)


@pytest.fixture(scope="session")
def engine(repository: ModelRepository) -> EmbeddedEngine:
    return EmbeddedEngine(repository)


@pytest.fixture
def pipeline(engine: EmbeddedEngine, repository: ModelRepository) -> AudioPipeline:
    return AudioPipeline(engine, repository, WindowPlan())
