"""Uploads in pieces: the offset handshake, quotas, expiry, and what happens when two send the same."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import threading
from dataclasses import replace
from pathlib import Path
from time import time as wall_clock
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import (
    AbortedError,
    BonafideError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    ResourceExhaustedError,
    UnavailableError,
)
from services.gateway.uploads import StoreLimits, UploadStore

LIMITS = StoreLimits(max_file_bytes=1000, uploads_per_caller=3, bytes_per_caller=2000, keep_seconds=60, reserve_bytes=0)
DATA = bytes(range(250)) * 2


class Time:
    """A clock that a test sets; seconds after the present."""

    ahead = 0.0

    def __call__(self) -> float:
        return wall_clock() + self.ahead


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(tmp_path: Path, time: Time) -> UploadStore:
    return UploadStore(tmp_path / "spool", LIMITS, time)


def send(store: UploadStore, upload_id: str, offset: int, data: bytes, owner: str = "ann") -> None:
    with store.append(owner, upload_id, offset) as stretch:
        for start in range(0, len(data), 100):
            stretch.write(data[start : start + 100])
        stretch.finish()


def refused(kind: type[BonafideError], reason: str) -> pytest.RaisesExc[BonafideError]:
    return pytest.RaisesExc(kind, check=lambda error: error.reason == reason)


def test_a_file_in_two_stretches_comes_out_whole(store: UploadStore) -> None:
    upload = store.create("ann", 500, hashlib.sha256(DATA).hexdigest())
    assert (upload.received_bytes, upload.complete) == (0, False)
    send(store, upload.upload_id, 0, DATA[:300])
    found = store.find("ann", upload.upload_id)
    assert (found.received_bytes, found.complete) == (300, False)
    send(store, upload.upload_id, 300, DATA[300:])
    assert store.find("ann", upload.upload_id).complete
    with store.open("ann", upload.upload_id) as file:
        assert file.read() == DATA


def test_another_process_that_shares_the_directory_goes_on(store: UploadStore, tmp_path: Path) -> None:
    upload = store.create("ann", 500)
    send(store, upload.upload_id, 0, DATA[:300])
    other = UploadStore(tmp_path / "spool", LIMITS)
    send(other, upload.upload_id, other.find("ann", upload.upload_id).received_bytes, DATA[300:])
    with store.open("ann", upload.upload_id) as file:
        assert file.read() == DATA


@pytest.mark.parametrize("offset", [0, 299, 301, 1 << 60])
def test_a_wrong_offset_is_refused_and_the_right_one_named(store: UploadStore, offset: int) -> None:
    upload = store.create("ann", 500)
    send(store, upload.upload_id, 0, DATA[:300])
    with refused(OutOfRangeError, "OFFSET_MISMATCH") as error:
        send(store, upload.upload_id, offset, DATA[300:])
    assert "300" in error.value.message


def test_more_than_was_announced_is_refused(store: UploadStore) -> None:
    upload = store.create("ann", 500)
    with refused(OutOfRangeError, "UPLOAD_OVERFLOW"):
        send(store, upload.upload_id, 0, DATA + b"x")
    assert store.find("ann", upload.upload_id).received_bytes == 500


def test_two_at_once_never_mix_and_one_of_them_goes_on(store: UploadStore) -> None:
    upload = store.create("ann", 500)
    with store.append("ann", upload.upload_id, 0) as old, store.append("ann", upload.upload_id, 0) as new:
        new.write(DATA[:100])
        with refused(AbortedError, "UPLOAD_CONFLICT"):
            old.write(DATA[:100])
        new.write(DATA[100:])
        new.finish()
    with store.open("ann", upload.upload_id) as file:
        assert file.read() == DATA


def test_many_at_once_leave_the_bytes_of_one(store: UploadStore) -> None:
    upload = store.create("ann", 900)
    whole = DATA + DATA[:400]

    def keep_trying() -> None:
        while not (now := store.find("ann", upload.upload_id)).complete:
            try:
                send(store, upload.upload_id, now.received_bytes, whole[now.received_bytes :])
            except (AbortedError, OutOfRangeError):
                continue

    threads = [threading.Thread(target=keep_trying) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with store.open("ann", upload.upload_id) as file:
        assert file.read() == whole


@pytest.mark.parametrize("sha256", ["", hashlib.sha256(DATA).hexdigest()])
def test_an_upload_that_completes_while_it_is_opened_is_not_lost(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch, sha256: str
) -> None:
    upload = store.create("ann", 500, sha256)
    late = store.append("ann", upload.upload_id, 0)
    open_file = os.open

    def complete_first(*args: Any, **options: Any) -> int:
        monkeypatch.undo()
        with late:
            late.write(DATA)
            late.finish()
            late.finish()
        return open_file(*args, **options)

    monkeypatch.setattr(os, "open", complete_first)
    with refused(OutOfRangeError, "OFFSET_MISMATCH"):
        store.append("ann", upload.upload_id, 0)
    assert store.find("ann", upload.upload_id).complete


def test_an_upload_deleted_as_it_completes_is_gone(store: UploadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = store.create("ann", 500)
    unlink = Path.unlink

    def complete_first(path: Path, missing_ok: bool = False) -> None:
        monkeypatch.undo()
        send(store, upload.upload_id, 0, DATA)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", complete_first)
    store.delete("ann", upload.upload_id)
    with refused(NotFoundError, "UPLOAD_NOT_FOUND"):
        store.find("ann", upload.upload_id)


def test_a_process_that_hangs_while_it_holds_a_lock_holds_up_nobody_for_long(
    store: UploadStore, tmp_path: Path
) -> None:
    upload = store.create("ann", 500)
    (path,) = (tmp_path / "spool").glob("*/*")
    with path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with refused(AbortedError, "UPLOAD_CONFLICT"):
            send(store, upload.upload_id, 0, DATA)
    send(store, upload.upload_id, 0, DATA)
    with (tmp_path / "spool" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with refused(UnavailableError, "UNAVAILABLE"):
            store.create("ann", 500)
    store.create("ann", 500)


def test_bytes_that_do_not_have_the_declared_hash_are_refused_and_gone(store: UploadStore) -> None:
    upload = store.create("ann", 500, "ab" * 32)
    with refused(InvalidInputError, "HASH_MISMATCH"):
        send(store, upload.upload_id, 0, DATA)
    with refused(NotFoundError, "UPLOAD_NOT_FOUND"):
        store.find("ann", upload.upload_id)


def test_a_stretch_without_bytes_finishes_what_a_crash_left_unfinished(store: UploadStore) -> None:
    upload = store.create("ann", 500)
    with store.append("ann", upload.upload_id, 0) as stretch:
        stretch.write(DATA)  # the process dies before finish()
    assert not store.find("ann", upload.upload_id).complete
    send(store, upload.upload_id, 500, b"")
    assert store.find("ann", upload.upload_id).complete


def test_it_cannot_be_read_before_it_is_whole(store: UploadStore) -> None:
    upload = store.create("ann", 500)
    send(store, upload.upload_id, 0, DATA[:300])
    with refused(PreconditionError, "UPLOAD_INCOMPLETE"):
        store.open("ann", upload.upload_id)


def test_somebody_elses_upload_is_not_to_be_found(store: UploadStore) -> None:
    upload = store.create("ann", 500)
    send(store, upload.upload_id, 0, DATA)
    for attempt in (
        lambda: store.find("bob", upload.upload_id),
        lambda: store.open("bob", upload.upload_id),
        lambda: store.delete("bob", upload.upload_id),
        lambda: send(store, upload.upload_id, 500, b"", owner="bob"),
    ):
        with refused(NotFoundError, "UPLOAD_NOT_FOUND"):
            attempt()
    assert store.find("ann", upload.upload_id).complete


@pytest.mark.parametrize("name", ["..", "*", "../" * 8 + "etc/passwd", "", "a/b", "\0"])
def test_an_id_is_never_a_path(store: UploadStore, name: str) -> None:
    upload = store.create("../../ann", 500)
    with refused(NotFoundError, "UPLOAD_NOT_FOUND"):
        store.delete("../../ann", name)
    assert store.find("../../ann", upload.upload_id)


def test_quotas_count_what_is_announced(store: UploadStore) -> None:
    with refused(LimitExceededError, "FILE_TOO_LARGE"):
        store.create("ann", 1001)
    first = store.create("ann", 1000)
    store.create("ann", 900)
    with refused(ResourceExhaustedError, "UPLOAD_QUOTA") as error:
        store.create("ann", 101)
    assert error.value.retry_after_seconds
    store.create("ann", 100)
    with refused(ResourceExhaustedError, "UPLOAD_QUOTA"):
        store.create("ann", 1)
    store.create("bob", 1000)
    store.delete("ann", first.upload_id)
    store.create("ann", 1000)


def test_no_room_on_the_disk_is_said_before_a_byte_is_sent(tmp_path: Path) -> None:
    huge = replace(LIMITS, reserve_bytes=1 << 60)
    with refused(ResourceExhaustedError, "SPOOL_FULL"):
        UploadStore(tmp_path, huge).create("ann", 1)


def test_a_disk_that_fills_up_is_said_and_nothing_is_lost(store: UploadStore, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = store.create("ann", 500)
    real, room = os.write, 250

    def write(file: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "no space left", "/secret/path")
        written = real(file, data[:room])
        room -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr("services.gateway.uploads.os.write", write)
        with refused(ResourceExhaustedError, "SPOOL_FULL") as error:
            send(store, upload.upload_id, 0, DATA)
    assert "secret" not in error.value.message
    received = store.find("ann", upload.upload_id).received_bytes
    assert received == 250
    send(store, upload.upload_id, received, DATA[received:])
    with store.open("ann", upload.upload_id) as file:
        assert file.read() == DATA


def test_what_expires_is_gone_and_its_room_is_free(store: UploadStore, time: Time, tmp_path: Path) -> None:
    upload = store.create("ann", 1000)
    foreign = tmp_path / "spool" / "notes.txt"
    foreign.write_text("not an upload")
    time.ahead = 59
    assert store.find("ann", upload.upload_id)
    time.ahead = 61
    with refused(NotFoundError, "UPLOAD_NOT_FOUND"):
        store.find("ann", upload.upload_id)
    store.sweep()
    assert {path.name for path in (tmp_path / "spool").rglob("*")} == {".lock", "notes.txt"}


def test_deleted_while_bytes_come(store: UploadStore) -> None:
    upload = store.create("ann", 500)
    with store.append("ann", upload.upload_id, 0) as stretch:
        store.delete("ann", upload.upload_id)
        with refused(NotFoundError, "UPLOAD_NOT_FOUND"):
            stretch.write(DATA)


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 500), max_size=6), wrong=st.integers(0, 600))
def test_any_cuts_give_the_same_file(tmp_path_factory: pytest.TempPathFactory, cuts: list[int], wrong: int) -> None:
    store = UploadStore(tmp_path_factory.mktemp("spool"), LIMITS)
    upload = store.create("ann", 500, hashlib.sha256(DATA).hexdigest())
    edges = [0, *sorted(cuts), 500]
    for start, end in itertools.pairwise(edges):
        if wrong != start:
            with pytest.raises(OutOfRangeError):
                send(store, upload.upload_id, wrong, DATA[wrong:])
        if not store.find("ann", upload.upload_id).complete:
            send(store, upload.upload_id, start, DATA[start:end])
    with store.open("ann", upload.upload_id) as file:
        assert file.read() == DATA
