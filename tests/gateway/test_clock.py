"""Pictures and sound share one clock, exact to the microsecond where the container is."""

import io

import numpy as np
import pytest

from services.common.media import SAMPLE_RATE
from services.gateway.decoding import DecodedClip, decode
from tests import media_factory as media
from tests.media_factory import Clip

CLICKS = (0.4, 1.0, 1.6)


def decoded(recipe: Clip) -> DecodedClip:
    return decode(io.BytesIO(recipe.bytes()))


def click_times(clip: DecodedClip) -> list[float]:
    """Seconds at which clicks begin, on the clip's clock."""
    assert clip.audio is not None
    loud = np.flatnonzero(np.abs(clip.audio.samples) > 0.25)
    firsts = loud[np.flatnonzero(np.diff(loud, prepend=-SAMPLE_RATE) > SAMPLE_RATE // 10)]
    return [clip.audio.start_us / 1e6 + first / SAMPLE_RATE for first in firsts]


@pytest.mark.parametrize(("rate", "tick"), [(25, 0.0), (24, 0.5), (30, 0.5), (50, 0.0)])
def test_times_are_exact_to_the_microsecond(rate: int, tick: float) -> None:
    clip = decoded(Clip(rate=rate, frames=16, audio_codec=None))
    for frame in clip.survey:
        index = media.read_number(frame.pixels)
        assert abs(frame.time_us - index * 1_000_000 / rate) <= tick


@pytest.mark.parametrize(
    ("container", "video_codec", "audio_codec"),
    [
        ("mp4", "libx264", "aac"),
        ("mov", "libx264", "pcm_s16le"),
        ("matroska", "libx264", "aac"),
        ("webm", "libvpx-vp9", "libopus"),
        ("mpegts", "libx264", "aac"),
        ("flv", "libx264", "aac"),
        ("avi", "mpeg4", "pcm_s16le"),
    ],
)
def test_a_click_is_heard_with_the_picture_it_was_made_with(container: str, video_codec: str, audio_codec: str) -> None:
    sound = media.click_track(2.0, CLICKS)
    clip = decoded(Clip(container=container, video_codec=video_codec, audio_codec=audio_codec, sound=sound))
    assert click_times(clip) == pytest.approx(CLICKS, abs=0.03)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("delay", [1.5, 0.2])
def test_sound_that_starts_later_stays_later(container: str, delay: float) -> None:
    sound = media.click_track(0.4, [0.1])
    clip = decoded(Clip(container=container, sound=sound, sound_delay=delay))
    assert clip.audio is not None
    assert click_times(clip) == pytest.approx([delay + 0.1], abs=0.03)


def test_sound_that_starts_before_the_picture_has_a_negative_start() -> None:
    times = tuple(0.8 + index / 25 for index in range(25))
    clip = decoded(Clip(container="matroska", times=times, sound=media.click_track(2.0, CLICKS)))
    assert clip.survey[0].time_us < 100_000
    assert clip.audio is not None
    assert clip.audio.start_us == pytest.approx(-800_000, abs=25_000)
    assert click_times(clip) == pytest.approx([moment - 0.8 for moment in CLICKS], abs=0.03)


def test_sound_alone_is_on_its_own_clock() -> None:
    data = media.sound_file("wav", "pcm_f32le", media.click_track(2.0, CLICKS))
    clip = decode(io.BytesIO(data))
    assert click_times(clip) == pytest.approx(CLICKS, abs=0.001)
    assert clip.info.duration_us == 2_000_000
