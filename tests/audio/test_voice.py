from __future__ import annotations

import numpy as np
import pytest

from services.audio.voice import VoiceAnalyzer, mel_filter_bank
from services.common.media import AudioTrack


def test_rows_are_on_the_clips_clock() -> None:
    samples = np.zeros(16000, np.float32)
    samples[8000] = 1.0
    voice = VoiceAnalyzer().sequence(AudioTrack(250_000, samples))
    assert voice is not None
    assert voice.values.shape == (98, 40)
    assert voice.values.dtype == np.float32
    assert voice.step_us == 10_000
    loudest = voice.start_us + int(voice.values.sum(1).argmax()) * voice.step_us
    assert loudest == pytest.approx(750_000, abs=5_000)


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 2500.0, 6000.0])
def test_a_tone_lights_up_its_own_band(hertz: float) -> None:
    samples = np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32)
    voice = VoiceAnalyzer().sequence(AudioTrack(0, samples))
    assert voice is not None
    filters = mel_filter_bank(40, 512, 16_000, 0.0, 8000.0)
    nearest = filters[:, round(hertz * 512 / 16_000)].argmax()
    assert voice.values.mean(0).argmax() == nearest


def test_filters_have_equal_area() -> None:
    filters = mel_filter_bank(20, 4096, 16_000, 0.0, 8000.0)
    np.testing.assert_allclose(filters.sum(1) * 16_000 / 4096, 1.0, rtol=0.02)


def test_too_short_for_one_row() -> None:
    assert VoiceAnalyzer().sequence(AudioTrack(0, np.zeros(399, np.float32))) is None
