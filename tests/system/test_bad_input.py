"""Every door, every kind of bad input: a typed error or an honest INCONCLUSIVE, and nothing lost or leaked."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from bonafide.client import BadInputError, Client
from services.common.evidence import Branch, Outcome, ReasonCode, Verdict
from tests import media_factory as make
from tests.system.conftest import analyze
from tests.system.watching import Baseline

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "EMPTY_INPUT"),
    "random bytes": (make.random_bytes, "UNSUPPORTED_MEDIA"),
    "text": (make.text_file, "UNSUPPORTED_MEDIA"),
    "zip": (make.zip_archive, "UNSUPPORTED_MEDIA"),
    "elf": (make.elf_file, "UNSUPPORTED_MEDIA"),
    "m3u8": (lambda: make.m3u8_playlist("/etc/hostname"), "UNSUPPORTED_MEDIA"),
    "sdp": (lambda: make.sdp_description(9), "UNSUPPORTED_MEDIA"),
    "ffconcat": (lambda: make.ffconcat_script("/etc/hostname"), "UNSUPPORTED_MEDIA"),
    "moov last, cut": (lambda: make.cut(make.Clip().bytes()), "DAMAGED_MEDIA"),
    "pixel bomb, still": (make.pixel_bomb_still, "TOO_MANY_PIXELS"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_its_reason(client: Client, baseline: Baseline, kind: str) -> None:
    build, reason = REFUSED[kind]
    data = build()
    with pytest.raises(BadInputError) as refused:
        analyze(client, data)
    assert refused.value.reason == reason
    assert "/" not in refused.value.message
    assert not baseline.files_grown()


def test_pixel_bomb_is_refused_before_memory_grows(client: Client, baseline: Baseline) -> None:
    with pytest.raises(BadInputError) as refused:
        analyze(client, make.pixel_bomb_video())
    assert refused.value.reason == "TOO_MANY_PIXELS"
    assert baseline.peak_growth("gateway") < 200 << 20


def test_too_many_bytes_are_refused_while_streaming(client: Client) -> None:
    class Endless(io.RawIOBase):
        """An upload of unknown size that would never stop by itself; counts what was taken from it."""

        taken = 0

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return False

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            if self.taken > 512 << 20:
                raise AssertionError("the upload was never refused")
            head = b"\x00\x00\x00\x18ftypisom" if self.taken == size else b""
            return head + bytes(size - len(head))

    upload = Endless()
    with pytest.raises(BadInputError) as refused:
        client.analyze(upload, timeout=60)  # type: ignore[arg-type]
    assert refused.value.reason == "FILE_TOO_LARGE"


def test_declared_size_over_the_limit_is_refused_at_once(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "sparse.mp4"
    with path.open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(BadInputError) as refused:
        client.analyze(path, timeout=20)
    assert refused.value.reason == "FILE_TOO_LARGE"


def test_over_the_duration_limit(client: Client) -> None:
    long_ago = make.Clip(times=tuple(float(second) for second in range(0, 700, 10)), audio_codec=None)
    with pytest.raises(BadInputError) as refused:
        analyze(client, long_ago.bytes())
    assert refused.value.reason == "DURATION_TOO_LONG"


def test_fast_start_cut_in_half_is_analysed_and_says_so(client: Client) -> None:
    answer = analyze(client, make.cut(make.fast_start(frames=100)))
    assert answer.media.partial
    assert not answer.media.interrupted
    assert ReasonCode.PARTIAL_MEDIA in answer.reasons
    assert answer.verdict is Verdict.INCONCLUSIVE


TYPED = {"DAMAGED_MEDIA", "UNSUPPORTED_CODEC", "UNSUPPORTED_MEDIA", "NO_MEDIA", "TOO_MANY_PIXELS", "DURATION_TOO_LONG"}


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_never_crash(client: Client, seed: int) -> None:
    damaged = make.flip_bytes(make.fast_start(frames=100), seed=seed)
    reason, answer = "", None
    try:
        answer = analyze(client, damaged)
    except BadInputError as refused:
        reason = refused.reason
    if answer is None:
        assert reason in TYPED
    else:
        assert answer.verdict is Verdict.INCONCLUSIVE
        assert answer.probability is None
        assert ReasonCode.PARTIAL_MEDIA in answer.reasons


@pytest.mark.parametrize(
    ("kind", "build"),
    [
        ("no face", lambda: make.Clip().bytes()),
        ("one frame", lambda: make.Clip(frames=1, audio_codec=None).bytes()),
        ("one second", lambda: make.Clip(frames=25).bytes()),
        ("cover art", make.mp3_with_cover_art),
        ("tone alone", make.sound_file),
    ],
)
def test_nothing_to_judge_is_inconclusive_with_a_whole_ledger(
    client: Client, kind: str, build: Callable[[], bytes]
) -> None:
    answer = analyze(client, build())
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert answer.probability is None
    assert ReasonCode.TOO_LITTLE_EVIDENCE in answer.reasons
    assert [report.branch for report in answer.branches] == list(Branch)
    assert all(report.score is None for report in answer.branches)
    outcomes = {report.branch: report for report in answer.branches}
    assert outcomes[Branch.AUDIO].reason in {ReasonCode.NO_SPEECH, ReasonCode.NO_AUDIO, ReasonCode.CLIP_TOO_SHORT}
    visual = ReasonCode.NO_VIDEO if kind in {"cover art", "tone alone"} else ReasonCode.NO_FACE
    assert outcomes[Branch.FRAME].reason is visual
    assert outcomes[Branch.FRAME].outcome is Outcome.NOT_APPLICABLE


def test_face_below_the_smallest_size_is_not_scored(client: Client) -> None:
    tiny = make.Clip(picture=lambda _, width, height: make.portrait(width, height, 0.22), audio_codec=None, frames=12)
    answer = analyze(client, tiny.bytes())
    report = next(report for report in answer.branches if report.branch is Branch.FRAME)
    assert report.score is None
    assert report.reason in {ReasonCode.FACE_TOO_SMALL, ReasonCode.NO_FACE}
    assert answer.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": "no-such-policy"}, "UNKNOWN_POLICY"),
        ({"request_id": "x" * 129}, "INVALID_REQUEST_ID"),
        ({"request_id": "a\nb"}, "INVALID_REQUEST_ID"),
    ],
)
def test_options_out_of_range(client: Client, changes: dict[str, str], reason: str) -> None:
    with pytest.raises(BadInputError) as refused:
        client.analyze(io.BytesIO(make.Clip(frames=5).bytes()), timeout=30, **changes)  # type: ignore[arg-type]
    assert refused.value.reason == reason


def test_file_name_is_never_opened(client: Client) -> None:
    answer = client.analyze(io.BytesIO(make.still_picture()), name="../../etc/passwd", timeout=30)
    assert answer.media.still
