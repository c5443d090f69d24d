"""Uploads are bounded while they stream, hashed as they come and left nowhere."""

import hashlib

import pytest

from services.common.errors import InvalidInputError, LimitExceededError, ResourceExhaustedError
from services.gateway.ingest import Spool


@pytest.mark.parametrize("memory_bytes", [10, 1 << 20])
def test_bytes_and_hash_come_out_as_they_went_in(memory_bytes: int) -> None:
    chunks = [bytes([value]) * 100 for value in range(10)]
    with Spool(max_bytes=1000, memory_bytes=memory_bytes) as spool:
        for chunk in chunks:
            spool.write(chunk)
        assert spool.finish().read() == b"".join(chunks)
        assert spool.size_bytes == 1000
        assert spool.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()


def test_refuses_the_chunk_that_crosses_the_limit_not_the_one_after() -> None:
    with Spool(max_bytes=150, memory_bytes=10) as spool:
        spool.write(bytes(100))
        with pytest.raises(LimitExceededError) as refused:
            spool.write(bytes(51))
        assert refused.value.reason == "FILE_TOO_LARGE"
        assert spool.size_bytes == 100
        spool.write(bytes(50))


def test_refuses_a_declared_size_before_any_byte() -> None:
    with Spool(max_bytes=150, memory_bytes=10) as spool, pytest.raises(LimitExceededError) as refused:
        spool.expect(151)
    assert refused.value.reason == "FILE_TOO_LARGE"


def test_an_empty_upload_is_an_error() -> None:
    with Spool(max_bytes=150, memory_bytes=10) as spool, pytest.raises(InvalidInputError) as refused:
        spool.finish()
    assert refused.value.reason == "EMPTY_INPUT"


def test_bytes_that_are_not_those_declared_are_refused() -> None:
    with Spool(max_bytes=150, memory_bytes=10) as spool:
        spool.write(b"abc")
        spool.verify("")
        spool.verify(hashlib.sha256(b"abc").hexdigest())
        with pytest.raises(InvalidInputError) as refused:
            spool.verify(hashlib.sha256(b"abd").hexdigest())
    assert refused.value.reason == "HASH_MISMATCH"


def test_a_full_disk_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full takes nothing, as a full disk does."""
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: open("/dev/full", "w+b", buffering=0))  # noqa: SIM115, PTH123
    with Spool(max_bytes=1000, memory_bytes=10) as spool, pytest.raises(ResourceExhaustedError) as refused:
        spool.write(bytes(100))
    assert refused.value.reason == "SPOOL_FULL"
    assert refused.value.retry_after_seconds


def test_a_large_upload_leaves_no_file_behind(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Spool(max_bytes=1 << 20, memory_bytes=10) as spool:
        spool.write(bytes(100_000))
        assert list(tmp_path.iterdir()) == []  # type: ignore[attr-defined]
        assert len(spool.finish().read()) == 100_000
    assert list(tmp_path.iterdir()) == []  # type: ignore[attr-defined]
