from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from services.audio.speech import describe_window, find_speech, plan_windows

Sound = npt.NDArray[np.float32]
SECONDS = 8
TIME = np.arange(SECONDS * 16000) / 16000
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal(TIME.size)
RUMBLE = np.cumsum(NOISE)

NOT_SPEECH = {
    "silence": np.zeros(TIME.size),
    "faint noise": 1e-4 * NOISE,
    "white noise": 0.2 * NOISE,
    "rumble": 0.5 * (RUMBLE - RUMBLE.mean()) / np.abs(RUMBLE).max(),
    "hum": 0.3 * np.sign(np.sin(2 * np.pi * 50 * TIME)),
    "buzzer": 0.2 * np.sign(np.sin(2 * np.pi * 120 * TIME)),
    "low tone": 0.3 * np.sin(2 * np.pi * 110 * TIME),
    "tone": 0.3 * np.sin(2 * np.pi * 440 * TIME),
    "high tone": 0.3 * np.sin(2 * np.pi * 3000 * TIME),
    "beeps": 0.3 * np.sin(2 * np.pi * 440 * TIME) * (np.sin(2 * np.pi * 2 * TIME) > 0),
    "tremolo": 0.3 * np.sin(2 * np.pi * 220 * TIME) * (1 + np.sin(2 * np.pi * 4 * TIME)),
    "sweep": 0.3 * np.sin(2 * np.pi * (100 * TIME + 50 * TIME**2)),
    "chord": sum(0.1 * np.sin(2 * np.pi * hertz * TIME) for hertz in (220, 277, 330)),
    "clicks": (RNG.random(TIME.size) < 2e-4).astype(float),
    "pulsing noise": 0.1 * NOISE * (1 + np.sin(2 * np.pi * 4 * TIME)),
}


@pytest.mark.parametrize("name", NOT_SPEECH)
def test_what_is_no_voice_is_no_speech(name: str) -> None:
    assert find_speech(NOT_SPEECH[name].astype(np.float32)).mean() < 0.02


def test_speech_is_found(speech: Callable[[float], Sound]) -> None:
    assert find_speech(speech(5.0)).mean() > 0.7


def test_speech_is_found_where_it_is(speech: Callable[[float], Sound]) -> None:
    pause = np.zeros(3 * 16000, np.float32)
    found = find_speech(np.concatenate([pause, speech(4.0), pause]))
    assert found[300:700].mean() > 0.7
    assert found[:280].sum() == 0
    assert found[720:].sum() == 0


def test_speech_is_found_in_noise(speech: Callable[[float], Sound]) -> None:
    voice = speech(5.0)
    noise = np.random.default_rng(1).standard_normal(voice.size) * voice.std() * 10 ** (-15 / 20)
    assert find_speech((voice + noise).astype(np.float32)).mean() > 0.5


@pytest.mark.parametrize("length", [0, 1, 639, 640, 800])
def test_crumbs_have_no_speech(length: int) -> None:
    found = find_speech(np.ones(length, np.float32))
    assert found.size == max(0, 1 + (length - 640) // 160)
    assert not found.any()


def test_windows_cover_all_speech_and_skip_pauses() -> None:
    speech = np.zeros(3000, np.bool_)
    speech[100:700] = True
    speech[2000:2100] = True
    windows = plan_windows(speech, seconds=4.0)
    assert windows == ((100, 500), (500, 900), (2000, 2400))
    covered = np.zeros_like(speech)
    for start, end in windows:
        covered[start:end] = True
    assert covered[speech].all()


def test_the_last_window_is_moved_back_to_full_length() -> None:
    assert plan_windows(np.ones(500, np.bool_), seconds=4.0) == ((0, 400), (100, 500))
    assert plan_windows(np.ones(300, np.bool_), seconds=4.0) == ((0, 300),)
    assert plan_windows(np.zeros(300, np.bool_), seconds=4.0) == ()


def test_windows_are_on_the_clips_clock() -> None:
    speech = np.zeros(500, np.bool_)
    speech[100:200] = True
    window = describe_window(speech, (100, 500), start_us=-40_000)
    assert (window.start_us, window.end_us) == (960_000, 4_960_000)
    assert window.speech_fraction == pytest.approx(0.25)
