"""Containers, codecs and shapes that are taken, each decoded to the right pictures at the right times."""

import gc
import io
import os

import av
import numpy as np
import pytest

from services.gateway.decoding import DecodedClip, decode
from tests import media_factory as media
from tests.media_factory import Clip

FORMATS = {
    "mp4 h264": Clip(),
    "mp4 h264 reordered": Clip(codec_options={"preset": "medium", "bf": "3"}),
    "mp4 h264 open groups": Clip(codec_options={"preset": "medium", "bf": "3", "x264-params": "open-gop=1"}),
    "mp4 fragmented": Clip(audio_codec=None, container_options={"movflags": "frag_keyframe+empty_moov"}),
    "mp4 hevc": Clip(video_codec="libx265"),
    "mp4 av1": Clip(video_codec="libsvtav1"),
    "mp4 mpeg4 reordered": Clip(video_codec="mpeg4", codec_options={"bf": "2"}),
    "mov h264": Clip(container="mov"),
    "mov prores": Clip(container="mov", video_codec="prores_ks", pixel_format="yuv422p10le"),
    "mkv h264 reordered": Clip(container="matroska", codec_options={"preset": "medium", "bf": "3"}),
    "mkv hevc": Clip(container="matroska", video_codec="libx265"),
    "webm vp9": Clip(container="webm", video_codec="libvpx-vp9", audio_codec="libopus"),
    "webm vp8": Clip(container="webm", video_codec="libvpx", audio_codec="libopus"),
    "webm av1": Clip(container="webm", video_codec="libsvtav1", audio_codec="libopus"),
    "avi h264 reordered": Clip(container="avi", audio_codec="mp3", codec_options={"preset": "medium", "bf": "3"}),
    "avi mpeg4": Clip(container="avi", video_codec="mpeg4", audio_codec="mp3", codec_options={"bf": "2"}),
    "flv h264": Clip(container="flv", codec_options={"preset": "medium", "bf": "3"}),
    "wmv": Clip(container="asf", video_codec="wmv2", audio_codec="wmav2"),
    "ts h264": Clip(container="mpegts", codec_options={"preset": "medium", "bf": "3"}),
    "ts hevc": Clip(container="mpegts", video_codec="libx265", codec_options={"preset": "medium"}),
    "ps mpeg2": Clip(container="vob", video_codec="mpeg2video", audio_codec="mp2", codec_options={"bf": "2"}),
    "video only": Clip(audio_codec=None),
    "10 bit": Clip(pixel_format="yuv420p10le"),
    "odd size": Clip(width=317, height=239, pixel_format="yuv444p"),
}
MILLISECOND_TICKS = {"mkv", "webm", "flv", "wmv"}


def decoded(data: bytes) -> DecodedClip:
    return decode(io.BytesIO(data))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_every_picture_at_its_time(name: str) -> None:
    recipe = FORMATS[name]
    clip = decoded(recipe.bytes())
    assert [media.read_number(frame.pixels) for frame in clip.dense] == list(range(50))
    slack = 1000 if name.split(maxsplit=1)[0] in MILLISECOND_TICKS else 12
    assert [frame.time_us for frame in clip.dense] == pytest.approx(np.arange(50) * 40_000, abs=slack)
    assert [media.read_number(frame.pixels) for frame in clip.survey] == [
        round(frame.time_us / 40_000) for frame in clip.survey
    ]
    assert len(clip.survey) == 16
    info = clip.info
    assert (info.width, info.height, info.partial, info.still) == (recipe.width, recipe.height, False, False)
    assert info.frame_rate == pytest.approx(25, rel=0.01)
    assert info.duration_us == pytest.approx(2_000_000, abs=80_000)
    assert info.frames_sampled == 50
    assert (clip.audio is None) == (recipe.audio_codec is None)


def test_names_of_container_and_codecs_are_ffmpegs() -> None:
    info = decoded(Clip(container="webm", video_codec="libvpx-vp9", audio_codec="libopus", frames=5).bytes()).info
    assert (info.container, info.video_codec, info.audio_codec) == ("matroska,webm", "vp9", "opus")


def test_one_picture() -> None:
    clip = decoded(Clip(frames=1, audio_codec=None).bytes())
    assert [frame.time_us for frame in (*clip.survey, *clip.dense)] == [0, 0]
    assert (clip.info.duration_us, clip.info.frame_rate, clip.info.still) == (40_000, 0.0, False)


def test_one_second() -> None:
    clip = decoded(Clip(frames=25).bytes())
    assert (len(clip.survey), len(clip.dense)) == (16, 25)


@pytest.mark.parametrize("rate", [12, 50])
def test_dense_rate_is_native_up_to_twenty_five(rate: int) -> None:
    clip = decoded(Clip(rate=rate, frames=2 * rate, audio_codec=None).bytes())
    assert len(clip.dense) == 2 * min(rate, 25)


def test_variable_frame_rate_keeps_each_time() -> None:
    times = (0.0, 0.04, 0.3, 0.34, 0.5, 1.1, 1.14, 1.2, 2.0, 2.9)
    clip = decoded(Clip(times=times).bytes())
    shown = {media.read_number(frame.pixels): frame.time_us for frame in (*clip.survey, *clip.dense)}
    assert [shown[index] for index in range(len(times))] == pytest.approx([t * 1e6 for t in times], abs=12)


@pytest.mark.parametrize("counter_clockwise", [90, 180, 270])
def test_display_rotation_is_applied(counter_clockwise: int) -> None:
    recipe = Clip(frames=3, audio_codec=None, rotation=counter_clockwise)
    clip = decoded(recipe.bytes())
    expected = np.rot90(media.numbered_picture(0), counter_clockwise // 90)
    for frames in (clip.survey, clip.dense):
        assert frames[0].pixels.shape == expected.shape
        assert np.abs(frames[0].pixels.astype(int) - expected).mean() < 8
    assert clip.info.rotation_degrees == 360 - counter_clockwise
    assert (clip.info.width, clip.info.height) == (expected.shape[1], expected.shape[0])


def test_decoded_pictures_do_not_wait_for_the_garbage_collector() -> None:
    data = Clip(frames=50).bytes()
    gc.collect()
    gc.disable()
    try:
        clip = decoded(data)
        kept = sum(isinstance(each, av.VideoFrame) and each.format.name != "rgb24" for each in gc.get_objects())
    finally:
        gc.enable()
    assert len(clip.dense) == 50
    assert kept <= 1


def test_large_pictures_are_scaled_to_the_plan() -> None:
    clip = decoded(Clip(frames=2, audio_codec=None, width=2560, height=1440).bytes())
    assert clip.survey[0].pixels.shape == (1080, 1920, 3)
    assert clip.dense[0].pixels.shape == (360, 640, 3)
    assert (clip.info.width, clip.info.height) == (2560, 1440)
    assert [media.read_number(frame.pixels) for frame in clip.dense] == [0, 1]


def test_colours_follow_the_matrix_that_the_file_states() -> None:
    def red(_: int, width: int, height: int) -> media.Pixels:
        return np.full((height, width, 3), (200, 30, 30), np.uint8)

    clip = decoded(Clip(frames=2, audio_codec=None, picture=red).bytes())
    for frames in (clip.survey, clip.dense):
        assert np.abs(frames[0].pixels.reshape(-1, 3).mean(axis=0) - (200, 30, 30)).max() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_stills_are_a_survey_of_one(kind: str) -> None:
    clip = decoded(media.still_picture(kind, 320, 240))
    assert [media.read_number(frame.pixels) for frame in clip.survey] == [5]
    assert (clip.dense, clip.audio, clip.survey[0].time_us) == ((), None, 0)
    info = clip.info
    assert (info.still, info.width, info.height, info.frames_sampled, info.duration_us) == (True, 320, 240, 1, 0)
    assert info.video_codec == {"JPEG": "mjpeg", "PNG": "png", "WEBP": "webp"}[kind]
    assert np.abs(clip.survey[0].pixels.astype(int) - media.numbered_picture(5)).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_shown_upright(orientation: int) -> None:
    stored = media.numbered_picture(5)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    shown = decoded(media.turned_photograph(orientation)).survey[0].pixels
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 6


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libopus"), ("ipod", "aac")],
)
def test_sound_alone(container: str, codec: str) -> None:
    clip = decoded(media.sound_file(container, codec, media.tone(2.0)))
    assert (clip.survey, clip.dense, clip.info.video_codec, clip.info.width) == ((), (), "", 0)
    assert clip.audio is not None
    assert clip.audio.start_us == 0
    assert len(clip.audio.samples) == pytest.approx(32_000, abs=2000)


def test_cover_art_is_no_video() -> None:
    clip = decoded(media.mp3_with_cover_art())
    assert (clip.survey, clip.dense, clip.info.video_codec) == ((), (), "")
    assert clip.audio is not None


@pytest.mark.parametrize(
    "codec_options",
    [{}, {"preset": "veryfast", "bf": "3", "x264-params": "open-gop=1"}],
    ids=["closed groups", "open groups"],
)
def test_long_clips_decode_only_the_groups_that_hold_samples(codec_options: dict[str, str]) -> None:
    recipe = Clip(frames=1500, rate=25, width=160, height=120, gop=25, audio_codec=None, codec_options=codec_options)
    clip = decoded(recipe.bytes())
    survey = [media.read_number(frame.pixels) for frame in clip.survey]
    assert survey == [(2 * step + 1) * 1500 // 32 % 1024 for step in range(16)]
    dense = [media.read_number(frame.pixels) for frame in clip.dense]
    assert dense == [index % 1024 for index in range(625, 875)]


def test_making_clips_leaves_this_process_scheduled_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    Clip(video_codec="libsvtav1", frames=2).bytes()
    assert os.sched_getscheduler(0) == before
