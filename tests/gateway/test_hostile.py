"""Bad and hostile files: a typed error or an honest partial clip, and nothing else is ever touched."""

import fcntl
import io
import os
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.common.errors import BonafideError, DeadlineError, InvalidInputError, Kind, LimitExceededError
from services.gateway.decoding import DecodedClip, decode
from services.gateway.limits import DecodeLimits, DecodingCancelledError
from tests import media_factory as media
from tests.media_factory import Clip

MEGABYTE = 1 << 20
BOMB_CONTAINERS = ("mp4", "mpegts", "matroska", "flv")
MEASURE = """
import resource, sys
from services.common.errors import BonafideError
from services.gateway.decoding import decode
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
decode(open(sys.argv[1], "rb"))
before = peak()
reason = "accepted"
try:
    decode(open(sys.argv[2], "rb"))
except BonafideError as error:
    reason = error.reason
print(reason, peak() - before)
"""


def decoded(data: bytes, **limits: float) -> DecodedClip:
    return decode(io.BytesIO(data), limits=DecodeLimits(**limits))  # type: ignore[arg-type]


def refusal(data: bytes, **limits: float) -> str:
    with pytest.raises(BonafideError) as refused:
        decoded(data, **limits)
    assert refused.value.kind in {Kind.INVALID_ARGUMENT, Kind.FAILED_PRECONDITION}
    return refused.value.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "UNSUPPORTED_MEDIA"),
        (media.random_bytes(), "UNSUPPORTED_MEDIA"),
        (media.text_file(), "UNSUPPORTED_MEDIA"),
        (media.zip_archive(), "UNSUPPORTED_MEDIA"),
        (media.elf_file(), "UNSUPPORTED_MEDIA"),
        (media.cut(Clip(frames=10).bytes(), 0.9), "DAMAGED_MEDIA"),
        (b"\x00\x00\x00\x18ftypisom" + media.random_bytes(), "DAMAGED_MEDIA"),
        (b"\x1a\x45\xdf\xa3" + media.random_bytes(), "DAMAGED_MEDIA"),
        (b"\x00\x00\x01\xba" + media.random_bytes(), "DAMAGED_MEDIA"),
        (b"ID3" + media.random_bytes(), "DAMAGED_MEDIA"),
        (b"OggS" + media.random_bytes(), "DAMAGED_MEDIA"),
        (media.cut(media.still_picture("PNG"), 0.01), "DAMAGED_MEDIA"),
        (b"\xff\xd8\xff" + media.random_bytes(seed=1), "DAMAGED_MEDIA"),
        (b"RIFF\x00\x10\x00\x00WEBPVP8 " + media.random_bytes(), "DAMAGED_MEDIA"),
    ],
    ids=[
        "empty",
        "random",
        "text",
        "zip",
        "elf",
        "mp4 without index",
        "mp4",
        "mkv",
        "ps",
        "mp3",
        "ogg",
        "png",
        "jpeg",
        "webp",
    ],
)
def test_what_can_never_be_analysed_is_refused(data: bytes, reason: str) -> None:
    if reason == "DAMAGED_MEDIA":
        assert refusal(data) in {"DAMAGED_MEDIA", "NO_MEDIA", "UNSUPPORTED_CODEC"}
    else:
        assert refusal(data) == reason


def test_a_fast_start_file_cut_in_half_is_analysed_as_far_as_it_goes() -> None:
    whole = media.fast_start(frames=250, width=640, height=480, gop=25, codec_options={"crf": "10"})
    clip = decoded(media.cut(whole, 0.5))
    assert clip.info.partial
    assert 50 < len(clip.dense) < 200
    assert [media.read_number(frame.pixels) for frame in clip.dense] == list(range(len(clip.dense)))
    assert clip.info.duration_us < 9_000_000


@pytest.mark.parametrize(("container", "codec"), [("matroska", "libx264"), ("avi", "mpeg4"), ("flv", "libx264")])
def test_a_cut_file_whose_header_promised_more_is_partial(container: str, codec: str) -> None:
    data = Clip(container=container, video_codec=codec, audio_codec="mp3", frames=150).bytes()
    assert not decoded(data).info.partial
    clip = decoded(media.cut(data, 0.5))
    assert clip.info.partial
    assert 10 < len(clip.dense) < 140


def test_a_cut_sound_file_is_partial() -> None:
    clip = decoded(media.cut(media.sound_file("wav", "pcm_s16le", media.tone(3.0)), 0.5))
    assert clip.info.partial
    assert clip.audio is not None


DAMAGEABLE = {
    "mp4": media.fast_start(frames=50),
    "fragments": Clip(container_options={"movflags": "frag_keyframe+empty_moov"}).bytes(),
    "mkv": Clip(container="matroska", codec_options={"preset": "medium", "bf": "3"}).bytes(),
    "webm": Clip(container="webm", video_codec="libvpx-vp9", audio_codec="libopus").bytes(),
    "av1": Clip(video_codec="libsvtav1", frames=25).bytes(),
    "hevc": Clip(container="mpegts", video_codec="libx265").bytes(),
    "avi": Clip(container="avi", video_codec="mpeg4", audio_codec="mp3").bytes(),
    "wmv": Clip(container="asf", video_codec="wmv2", audio_codec="wmav2").bytes(),
    "ps": Clip(container="vob", video_codec="mpeg2video", audio_codec="mp2").bytes(),
    "mp3": media.mp3_with_cover_art(),
    "flac": media.sound_file("flac", "flac"),
    "jpeg": media.still_picture("JPEG"),
    "png": media.still_picture("PNG"),
    "webp": media.still_picture("WEBP"),
}


def check_damaged(data: bytes) -> None:
    try:
        clip = decoded(data, max_seconds=600)
    except (InvalidInputError, LimitExceededError):
        return
    assert clip.survey or clip.audio is not None
    for frames in (clip.survey, clip.dense):
        times = [frame.time_us for frame in frames]
        assert times == sorted(set(times))
        assert all(frame.pixels.ndim == 3 for frame in frames)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(DAMAGEABLE)), st.integers(0, 1 << 30), st.sampled_from([0.001, 0.02]))
def test_flipped_bytes_give_a_clip_or_a_refusal(name: str, seed: int, share: float) -> None:
    check_damaged(media.flip_bytes(DAMAGEABLE[name], share, seed))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(DAMAGEABLE)), st.floats(0, 1))
def test_a_cut_anywhere_gives_a_clip_or_a_refusal(name: str, share: float) -> None:
    check_damaged(media.cut(DAMAGEABLE[name], share))


def test_damage_to_pictures_costs_only_those_pictures() -> None:
    whole = media.fast_start(frames=250, audio_codec=None, gop=25)
    clip = decoded(media.flip_bytes(whole, 0.001, seed=3, protect=6000))
    assert len(clip.dense) > 150
    assert clip.info.partial


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "m3u8 as mp4"])
def test_playlists_open_no_other_file(kind: str, tmp_path: Path) -> None:
    """The file they name is a pipe, so that any reading of it would show."""
    target = tmp_path / "other.mp4"
    content = Clip(frames=3, audio_codec=None).bytes()
    os.mkfifo(target)
    pipe = os.open(target, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(pipe, content)
        data = media.ffconcat_script(str(target)) if kind == "ffconcat" else media.m3u8_playlist(str(target))
        if kind.endswith("mp4"):
            data = b"\x00\x00\x00\x18ftypisom" + bytes(12) + data
        assert refusal(data) in {"UNSUPPORTED_MEDIA", "DAMAGED_MEDIA"}
        (unread,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
        assert unread == len(content)
    finally:
        os.close(pipe)


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp"])
def test_playlists_open_no_socket(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        address = f"http://127.0.0.1:{port}/clip.mp4"
        makers = {"m3u8": media.m3u8_playlist, "ffconcat": media.ffconcat_script}
        data = media.sdp_description(port) if kind == "sdp" else makers[kind](address)
        assert refusal(data) == "UNSUPPORTED_MEDIA"
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("media") / "small.mp4"
    file.write_bytes(Clip(frames=5).bytes())
    return file


def growth(small: Path, bomb: Path) -> tuple[str, int]:
    """Reason of the refusal and growth of peak memory, bytes, in a process of its own."""
    run = subprocess.run([sys.executable, "-c", MEASURE, small, bomb], capture_output=True, text=True, check=True)
    reason, grown = run.stdout.split()
    return reason, int(grown)


@pytest.fixture(scope="module")
def video_bombs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, bombs = tmp_path_factory.mktemp("bombs"), {}
    for container, data in media.pixel_bomb_videos(BOMB_CONTAINERS).items():
        bombs[container] = folder / container
        bombs[container].write_bytes(data)
    return bombs


@pytest.mark.parametrize("container", BOMB_CONTAINERS)
def test_a_video_bomb_is_refused_before_memory_grows(
    container: str, video_bombs: dict[str, Path], small_clip: Path
) -> None:
    bomb = video_bombs[container]
    assert bomb.stat().st_size < MEGABYTE
    reason, grown = growth(small_clip, bomb)
    assert reason == "TOO_MANY_PIXELS"
    assert grown < 50 * MEGABYTE


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_still_bomb_is_refused_before_memory_grows(kind: str, tmp_path: Path, small_clip: Path) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(media.pixel_bomb_still(kind))
    reason, grown = growth(small_clip, bomb)
    assert reason == "TOO_MANY_PIXELS"
    assert grown < 50 * MEGABYTE


def test_a_video_bomb_whose_container_lies_about_its_size_is_refused_too(
    video_bombs: dict[str, Path], tmp_path: Path, small_clip: Path
) -> None:
    stated, lie = struct.pack(">HH", 16_000, 16_000), struct.pack(">HH", 64, 64)
    honest = video_bombs["mp4"].read_bytes()
    assert stated in honest
    lying = tmp_path / "lying.mp4"
    lying.write_bytes(honest.replace(stated, lie))
    reason, grown = growth(small_clip, lying)
    assert reason in {"TOO_MANY_PIXELS", "DAMAGED_MEDIA"}
    assert grown < 50 * MEGABYTE


@pytest.mark.parametrize("kind", ["zTXt", "iCCP"])
def test_what_a_png_packs_beside_its_picture_is_never_unpacked(kind: str, tmp_path: Path, small_clip: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(media.png_with_packed_chunk(kind, megabytes=300))
    assert bomb.stat().st_size < MEGABYTE
    reason, grown = growth(small_clip, bomb)
    assert reason == "accepted"
    assert grown < 50 * MEGABYTE


def test_a_packed_movie_header_is_refused_before_it_is_unpacked(tmp_path: Path, small_clip: Path) -> None:
    bomb = tmp_path / "bomb.mov"
    bomb.write_bytes(media.packed_movie_header(megabytes=300))
    assert bomb.stat().st_size < MEGABYTE
    reason, grown = growth(small_clip, bomb)
    assert reason == "UNSUPPORTED_MEDIA"
    assert grown < 50 * MEGABYTE


def test_a_png_keeps_its_picture_without_its_comments() -> None:
    plain, commented = media.still_picture("PNG"), media.png_with_packed_chunk("zTXt", megabytes=1)
    assert commented != plain
    one, other = decoded(plain), decoded(commented)
    assert (one.survey[0].pixels == other.survey[0].pixels).all()


def test_limits_refuse_rather_than_cut() -> None:
    data = Clip(frames=50).bytes()
    assert refusal(data, max_duration_us=1_900_000) == "DURATION_TOO_LONG"
    assert refusal(data, max_frames=49) == "TOO_MANY_FRAMES"
    assert refusal(data, max_pixels=320 * 240 - 1) == "TOO_MANY_PIXELS"
    with pytest.raises(DeadlineError) as late:
        decoded(data, max_seconds=-1)
    assert late.value.reason == "DECODING_TOO_SLOW"
    assert refusal(media.sound_file(sound=media.tone(2.0)), max_duration_us=1_900_000) == "DURATION_TOO_LONG"
    decoded(data, max_duration_us=2_100_000, max_frames=50, max_pixels=320 * 240)


def test_cancelling_ends_the_decode_between_packets() -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    with pytest.raises(DecodingCancelledError):
        decode(io.BytesIO(Clip(frames=200).bytes()), cancelled=cancelled)
    assert asked == 21
