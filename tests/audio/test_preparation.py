from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.audio.preparation import FRAME, STEP, TARGET_RMS, prepare

Sound = npt.NDArray[np.float32]
SHORTEST = 4800


def loud_rms(samples: Sound) -> float:
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), FRAME)[::STEP]
    power = np.sort((frames**2).mean(1))
    return float(np.sqrt(power[int(power.size * 0.4) :].mean()))


def test_loudness_offset_and_silence_around_do_not_reach_the_model(speech: Callable[[float], Sound]) -> None:
    plain = speech(3.0)
    silence = np.zeros(8000, np.float32)
    dressed = (0.05 * np.concatenate([silence, plain, silence]) + 0.0).astype(np.float32)
    first, second = prepare(plain), prepare(dressed)
    assert abs(first.size - second.size) <= 2 * STEP
    assert loud_rms(first) == pytest.approx(TARGET_RMS, rel=1e-3)
    assert loud_rms(second) == pytest.approx(TARGET_RMS, rel=1e-3)


def test_constant_offset_is_removed(speech: Callable[[float], Sound]) -> None:
    plain = speech(2.0)
    np.testing.assert_allclose(prepare(plain + 0.25), prepare(plain), atol=1e-5)


def test_quiet_sounds_within_forty_decibels_are_kept() -> None:
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 300 * time)
    steps = np.concatenate([0.001 * tone, 0.05 * tone, tone, 0.001 * tone]).astype(np.float32)
    assert prepare(steps).size == pytest.approx(32000, abs=2 * FRAME)


def test_at_most_six_seconds(speech: Callable[[float], Sound]) -> None:
    assert prepare(speech(9.0)).size == 96_000


def test_digital_silence_and_crumbs() -> None:
    assert not prepare(np.zeros(16000, np.float32)).any()
    assert prepare(np.zeros(100, np.float32)).size == SHORTEST


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.float32, st.integers(0, 3000), elements=st.floats(-1, 1, width=32)))
def test_any_sound_gives_finite_samples(samples: Sound) -> None:
    made = prepare(samples)
    assert made.dtype == np.float32
    assert SHORTEST <= made.size <= max(samples.size, SHORTEST)
    assert np.isfinite(made).all()
