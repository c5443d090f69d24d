"""Sound becomes 16 kHz mono without losing precision, level or gaps."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from services.common.errors import LimitExceededError
from services.common.media import SAMPLE_RATE, AudioTrack
from services.gateway.decoding import decode
from services.gateway.sound import SoundAssembler
from tests import media_factory as media
from tests.media_factory import SOUND_RATE, Clip

TICK = Fraction(1, SOUND_RATE)


def decoded(data: bytes) -> AudioTrack:
    audio = decode(io.BytesIO(data)).audio
    assert audio is not None
    return audio


def frame(samples: media.Samples, start: int, rate: int = SOUND_RATE) -> av.AudioFrame:
    made = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
    made.sample_rate, made.pts, made.time_base = rate, start, Fraction(1, rate)
    return made


def level(samples: media.Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples[1000:-1000]))))


def test_quiet_sound_is_not_quantised() -> None:
    audio = decoded(media.sound_file("wav", "pcm_f32le", media.tone(1.0, level=1e-6)))
    assert level(audio.samples) == pytest.approx(1e-6 / 2**0.5, rel=0.01)
    assert len(np.unique(audio.samples)) > 100


@pytest.mark.parametrize("channels", [1, 2])
def test_speech_on_both_channels_keeps_its_level(channels: int) -> None:
    data = Clip(
        container="mov", video_codec=None, audio_codec="pcm_s16le", channels=channels, sound=media.tone(1.0)
    ).bytes()
    audio = decoded(data)
    assert audio.samples.dtype == np.float32
    assert len(audio.samples) == SAMPLE_RATE
    assert level(audio.samples) == pytest.approx(0.5 / 2**0.5, rel=0.01)


def test_numbers_that_are_none_become_silence() -> None:
    sound = media.tone(1.0)
    sound[20_000:20_010] = np.nan
    sound[30_000] = np.inf
    audio = decoded(media.sound_file("wav", "pcm_f32le", sound))
    assert np.isfinite(audio.samples).all()


def test_a_gap_in_the_timestamps_becomes_silence_of_its_length() -> None:
    assembler = SoundAssembler(TICK, 10_000_000)
    assembler.add(frame(media.tone(0.5), 0))
    assembler.add(frame(media.tone(0.5), SOUND_RATE))
    track = assembler.finish()
    assert track is not None
    assert len(track.samples) == pytest.approx(1.5 * SAMPLE_RATE, abs=2)
    assert np.abs(track.samples[8_200:15_900]).max() == 0
    assert level(track.samples[16_000:]) == pytest.approx(0.5 / 2**0.5, rel=0.02)


def test_small_jitter_in_the_timestamps_is_no_gap() -> None:
    assembler, sound = SoundAssembler(TICK, 10_000_000), media.tone(1.0)
    for start in range(0, SOUND_RATE, 4800):
        assembler.add(frame(sound[start : start + 4800], start + (start // 4800 % 2) * 480))
    track = assembler.finish()
    assert track is not None
    assert len(track.samples) == SAMPLE_RATE


def test_a_change_of_sampling_rate_is_followed() -> None:
    assembler = SoundAssembler(TICK, 10_000_000)
    assembler.add(frame(media.tone(0.5), 0))
    assembler.add(frame(media.tone(0.5)[:12_000], 12_000, rate=24_000))
    track = assembler.finish()
    assert track is not None
    assert len(track.samples) == pytest.approx(SAMPLE_RATE, abs=2)


def test_timestamps_cannot_make_the_track_longer_than_is_allowed() -> None:
    assembler = SoundAssembler(TICK, 10_000_000)
    assembler.add(frame(media.tone(0.1), 0))
    for start in (11 * SOUND_RATE, -11 * SOUND_RATE):
        with pytest.raises(LimitExceededError) as refused:
            assembler.add(frame(media.tone(0.1), start))
        assert refused.value.reason == "DURATION_TOO_LONG"
