"""Settings of the ways in: safe as they come, and refused where they would not be."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.common.errors import PermissionDeniedError
from services.gateway.intake_settings import IntakeSettings


async def test_nothing_is_fetched_by_default() -> None:
    for uri in ("https://example.org/a", "s3://bucket/key"):
        with pytest.raises(PermissionDeniedError):
            await anext(IntakeSettings().fetcher().fetch(uri))


@pytest.mark.parametrize(
    "wrong",
    [
        {"fetch_networks": ["127.0.0.0/8"]},
        {"fetch_networks": ["169.254.169.254/32"]},
        {"fetch_networks": ["8.8.8.0/24"]},
        {"s3_endpoint": "http://storage.example"},
        {"s3_endpoint": "https://storage.example/path"},
        {"s3_endpoint": "https://user:word@storage.example"},
        {"s3_endpoint": "https://10.0.0.1"},
    ],
)
def test_what_would_open_a_hole_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IntakeSettings(**wrong)  # type: ignore[arg-type]


def test_the_secret_key_is_not_shown(tmp_path: Path) -> None:
    settings = IntakeSettings(
        s3_endpoint="https://storage.example", s3_access_key="key", s3_secret_key="hidden", spool_directory=tmp_path
    )  # type: ignore[arg-type]
    assert "hidden" not in f"{settings!r}{settings.fetcher()!r}"


def test_the_spool_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spool = IntakeSettings().spool()
    assert spool.parent == tmp_path
    assert spool.stat().st_mode & 0o777 == 0o700
    assert IntakeSettings().spool() == spool
    spool.chmod(0o777)
    with pytest.raises(PermissionError):
        IntakeSettings().spool()
    spool.rmdir()
    spool.symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        IntakeSettings().spool()


def test_leftovers_are_swept_at_the_start_unless_another_replica_is_at_it(tmp_path: Path) -> None:
    settings = IntakeSettings(spool_directory=tmp_path, upload_keep_seconds=60)
    settings.upload_store().create("ann", 1)
    (left,) = (tmp_path / "uploads").glob("*/*")
    os.utime(left, (0, 0))
    with (tmp_path / "uploads" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        settings.upload_store()
        assert list((tmp_path / "uploads").glob("*/*"))
    settings.upload_store()
    assert not list((tmp_path / "uploads").glob("*/*"))
