"""Forged sound and timing."""

import numpy as np
import pytest

from services.common.media import SAMPLE_RATE, AudioTrack, Frame
from training.forging import (
    LARGEST_SHIFT_US,
    SMALLEST_SHIFT_US,
    Source,
    donors,
    dub,
    freeze,
    generator,
    shift,
    shift_of,
    still_index,
)

pytestmark = pytest.mark.training


def tone(seconds: float, hertz: float, level: float = 0.1) -> AudioTrack:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return AudioTrack(40_000, (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32))


def test_a_donor_is_a_stranger_and_always_the_same() -> None:
    sources = [Source(f"clip{number}", f"person{number // 3}", 3.0 + number) for number in range(12)]
    group = {source.name: source.group for source in sources}
    pairs = donors(sources)
    assert set(pairs) == set(group)
    assert all(group[clip] != group[donor] for clip, donor in pairs.items())
    assert pairs == donors(sources)
    assert pairs != donors(sources, seed=1)


def test_nobody_is_dubbed_by_his_own_group() -> None:
    assert donors([Source("a", "one", 3.0), Source("b", "one", 4.0)]) == {}


@pytest.mark.parametrize("seconds", [0.4, 2.0, 9.0])
def test_a_dub_has_the_clock_length_and_loudness_of_the_original(seconds: float) -> None:
    own, other = tone(2.0, 200, level=0.1), tone(seconds, 700, level=0.4)
    dubbed = dub(own, other, generator("a"))
    assert dubbed.start_us == own.start_us
    assert dubbed.samples.shape == own.samples.shape
    assert dubbed.samples.dtype == np.float32
    assert np.sqrt(np.mean(dubbed.samples**2)) == pytest.approx(np.sqrt(np.mean(own.samples**2)), rel=0.02)
    spectrum = np.abs(np.fft.rfft(dubbed.samples))
    assert np.argmax(spectrum) * SAMPLE_RATE / dubbed.samples.size == pytest.approx(700, abs=3)


def test_a_dub_by_silence_stays_silent() -> None:
    silence = AudioTrack(0, np.zeros(100, np.float32))
    assert not dub(tone(1.0, 300), silence, generator("a")).samples.any()


@pytest.mark.parametrize("offset", [250_000, -250_000])
def test_a_shift_moves_sound_by_the_offset(offset: int) -> None:
    audio = AudioTrack(0, np.zeros(SAMPLE_RATE, np.float32))
    audio.samples[8000] = 1.0
    moved = shift(audio, offset)
    peak_us = moved.start_us + int(np.argmax(moved.samples)) * 1_000_000 // SAMPLE_RATE
    assert peak_us == 500_000 + offset
    assert moved.start_us >= 0
    assert moved.start_us + moved.samples.size * 1_000_000 // SAMPLE_RATE <= 1_000_000


def test_a_shift_leaves_something() -> None:
    with pytest.raises(ValueError, match="shorter"):
        shift(tone(0.2, 200), 400_000)


def test_shifts_are_known_by_name_and_go_both_ways() -> None:
    offsets = [shift_of(f"clip{number}") for number in range(50)]
    assert offsets == [shift_of(f"clip{number}") for number in range(50)]
    assert all(SMALLEST_SHIFT_US <= abs(offset) <= LARGEST_SHIFT_US for offset in offsets)
    assert any(offset < 0 for offset in offsets)
    assert any(offset > 0 for offset in offsets)


def test_a_still_keeps_times_and_one_picture() -> None:
    frames = [Frame(time * 40_000, np.full((4, 4, 3), time, np.uint8)) for time in range(10)]
    chosen = still_index("clip", len(frames))
    frozen = freeze(frames, chosen)
    assert [frame.time_us for frame in frozen] == [frame.time_us for frame in frames]
    assert all((frame.pixels == chosen).all() for frame in frozen)
    assert {still_index(f"{name}", 1) for name in range(5)} == {0}
