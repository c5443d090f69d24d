from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.evidence import MotionSequence, VoiceSequence
from services.fusion.clock import SILENCE, SLOT_US, VOICE_ROWS, align

BANDS = 40


def motion_at(times_us: list[int]) -> MotionSequence:
    """Every lip coordinate equals the time in seconds."""
    values = np.repeat(np.array(times_us, np.float32)[:, None] / 1e6, 80, axis=1)
    return MotionSequence(3, tuple(times_us), values)


def voice_from(start_us: int, rows: int) -> VoiceSequence:
    """Every band equals the time in seconds."""
    times = (start_us + 10_000 * np.arange(rows)) / 1e6
    return VoiceSequence(start_us, 10_000, np.repeat(times[:, None], BANDS, axis=1).astype(np.float32))


@given(st.sampled_from([15, 20, 24, 25, 30, 50, 60]), st.integers(-300_000, 300_000))
def test_any_frame_rate_comes_onto_one_clock(rate: int, voice_start: int) -> None:
    times = [round(index * 1e6 / rate) for index in range(rate * 3)]
    pair = align(motion_at(times), voice_from(voice_start, 400))
    assert pair is not None
    assert pair.track_id == 3
    clock = (pair.start_us + SLOT_US * np.arange(len(pair.motion))) / 1e6
    np.testing.assert_allclose(pair.motion[:, 0], clock, atol=1e-4)
    rows = pair.voice.reshape(len(clock), VOICE_ROWS, BANDS)
    heard = rows[:, :, 0] > SILENCE / 2
    assert heard.any()
    # Rows are the nearest ones, so they lie within half a step and half a slot of the slot's centre.
    assert np.abs(rows[:, :, 0] - clock[:, None])[heard].max() <= 0.0201


def test_the_slots_rows_are_in_time_order() -> None:
    pair = align(motion_at(list(range(0, 2_000_000, SLOT_US))), voice_from(0, 220))
    assert pair is not None
    rows = pair.voice.reshape(len(pair.motion), VOICE_ROWS, BANDS)[1:, :, 0]
    assert (np.diff(rows.ravel()) > 0).all()


def test_a_long_gap_ends_a_run_and_the_longer_side_stays() -> None:
    times = [*range(0, 1_000_000, SLOT_US), *range(2_000_000, 5_000_000, SLOT_US)]
    pair = align(motion_at(times), voice_from(0, 600))
    assert pair is not None
    assert pair.start_us == 2_000_000
    assert len(pair.motion) == 75


def test_outside_the_sound_there_is_silence() -> None:
    pair = align(motion_at(list(range(0, 2_000_000, SLOT_US))), voice_from(1_000_000, 50))
    assert pair is not None
    assert (pair.voice[:20] == np.float32(SILENCE)).all()
    assert (pair.voice[-10:] == np.float32(SILENCE)).all()


@pytest.mark.parametrize("times", [[], [0], [0, 1_000_000, 2_000_000]])
def test_too_little_motion_makes_no_pair(times: list[int]) -> None:
    assert align(motion_at(times), voice_from(0, 200)) is None


def test_sound_that_never_meets_the_picture_makes_no_pair() -> None:
    times = list(range(0, 1_000_000, SLOT_US))
    assert align(motion_at(times), voice_from(5_000_000, 100)) is None
    assert align(motion_at(times), voice_from(-5_000_000, 100)) is None
