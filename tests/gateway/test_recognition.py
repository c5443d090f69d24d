"""Only containers that are taken are recognised, by their first bytes."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInputError
from services.gateway.recognition import recognise
from tests import media_factory as media

REFUSED = {
    "random": media.random_bytes(),
    "text": media.text_file(),
    "zip": media.zip_archive(),
    "elf": media.elf_file(),
    "m3u8": media.m3u8_playlist("/etc/hostname"),
    "sdp": media.sdp_description(5004),
    "ffconcat": media.ffconcat_script("/etc/hostname"),
    "gif": media.still_picture("GIF"),
    "heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
    "one byte": b"\x00",
    "sync byte once": b"\x47" + bytes(1000),
}
SOUND_CODECS = {"wav": "pcm_s16le", "mp3": "libmp3lame", "flac": "flac", "ogg": "libopus", "ipod": "aac"}
DEMUXERS = {"wav": "wav", "mp3": "mp3", "flac": "flac", "ogg": "ogg", "ipod": "mov"}


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses_what_is_no_media(kind: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        recognise(io.BytesIO(REFUSED[kind]))
    assert refused.value.reason == "UNSUPPORTED_MEDIA"


@pytest.mark.parametrize("container", SOUND_CODECS)
def test_recognises_sound(container: str) -> None:
    data = media.sound_file(container, SOUND_CODECS[container], media.tone(0.5))
    assert recognise(io.BytesIO(data)).demuxer == DEMUXERS[container]


def test_recognises_an_mp3_without_a_tag() -> None:
    data = media.sound_file("mp3", "libmp3lame", media.tone(0.5))
    start = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] & 0xE0 == 0xE0)
    assert recognise(io.BytesIO(data[start:])).demuxer == "mp3"


@pytest.mark.parametrize(("kind", "demuxer"), [("JPEG", "jpeg_pipe"), ("PNG", "png_pipe"), ("WEBP", "webp_pipe")])
def test_recognises_stills(kind: str, demuxer: str) -> None:
    found = recognise(io.BytesIO(media.still_picture(kind)))
    assert (found.demuxer, found.still) == (demuxer, True)


@given(st.binary(min_size=0, max_size=600))
def test_never_fails_otherwise_than_by_refusing(head: bytes) -> None:
    source = io.BytesIO(head)
    with contextlib.suppress(InvalidInputError):
        recognise(source)
    assert source.tell() == 0
