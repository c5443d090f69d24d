"""Settings of the ways in beside the plain upload: kept uploads, URIs, batches."""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from services.common.errors import InvalidInputError, UnavailableError
from services.common.settings import ServiceSettings
from services.gateway.addresses import AddressGuard, GuardedBackend, private_networks, resolve
from services.gateway.batch import BatchLimits
from services.gateway.fetching import Fetcher, FetchLimits, S3Storage
from services.gateway.s3_signing import S3Credentials
from services.gateway.uploads import StoreLimits, UploadStore
from services.gateway.uris import AllowList, Target, parse_uri


class IntakeSettings(ServiceSettings):
    """What uploads in pieces, URIs and batches may use."""

    max_file_bytes: int = Field(2 << 30, ge=1, description="Largest file, bytes.")
    spool_directory: Path | None = Field(
        None,
        description="Directory of files that are kept on disk; shared by replicas, any of them can go on with an"
        " upload. None: bonafide-UID in the system's directory of temporary files.",
    )
    spool_reserve_bytes: int = Field(256 << 20, ge=0, description="Bytes of that disk that kept uploads leave free.")
    upload_keep_seconds: float = Field(
        6 * 3600.0, gt=0, description="Life of a kept upload after its last byte, seconds."
    )
    upload_sweep_seconds: float = Field(
        60.0, gt=0, description="Pause between looks for kept uploads that have expired, seconds."
    )
    uploads_per_caller: int = Field(64, ge=1, description="Kept uploads of one caller.")
    upload_bytes_per_caller: int = Field(16 << 30, ge=1, description="Announced bytes of one caller's kept uploads.")
    fetch_hosts: tuple[str, ...] = Field(
        (), description="Hosts that https:// URIs may name: NAME, NAME:PORT or *.NAME, as a JSON list; empty: none."
    )
    fetch_networks: tuple[str, ...] = Field(
        (), description="Private networks (CIDR, JSON list) that may be fetched from; loopback and link-local never."
    )
    fetch_authorities: Path | None = Field(
        None, description="PEM file of further authorities that vouch for hosts that are fetched from."
    )
    fetch_redirects: int = Field(3, ge=0, description="Redirects that are followed, each checked like a URI.")
    fetch_connect_seconds: float = Field(5.0, gt=0, description="Longest wait for a connection of a fetch, seconds.")
    fetch_silence_seconds: float = Field(15.0, gt=0, description="Longest silence of a fetch, seconds.")
    s3_endpoint: str = Field("", description="https:// URL of the object storage behind s3://; empty: none.")
    s3_buckets: tuple[str, ...] = Field(
        (), description="Buckets that s3:// URIs may name, as a JSON list; empty: none."
    )
    s3_region: str = Field("us-east-1", description="Region that signed requests to the storage name.")
    s3_access_key: str = Field("", description="Access key of the storage; empty: requests are not signed.")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="Secret key of the storage.")
    batch_items: int = Field(100, ge=1, le=1000, description="Most clips of one batch.")
    batch_concurrency: int = Field(4, ge=1, description="Clips of one batch that are worked on at the same time.")

    @field_validator("fetch_networks")
    @classmethod
    def _networks_are_private(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        private_networks(value)
        return value

    @field_validator("s3_endpoint")
    @classmethod
    def _endpoint_is_a_host(cls, value: str) -> str:
        if value:
            _endpoint(value)
        return value

    def spool(self) -> Path:
        """The directory of files on disk, made if need be.

        Raises:
            OSError: it cannot be made, or is somebody else's.
        """
        if self.spool_directory is None:
            return _own_directory()
        self.spool_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.spool_directory

    def upload_store(self) -> UploadStore:
        """The kept uploads, with leftovers of earlier lives swept out."""
        limits = StoreLimits(
            max_file_bytes=self.max_file_bytes,
            uploads_per_caller=self.uploads_per_caller,
            bytes_per_caller=self.upload_bytes_per_caller,
            keep_seconds=self.upload_keep_seconds,
            reserve_bytes=self.spool_reserve_bytes,
        )
        store = UploadStore(self.spool() / "uploads", limits)
        with suppress(UnavailableError):  # another replica is at it, and everyone looks again
            store.sweep()
        return store

    def fetcher(self) -> Fetcher:
        """What fetches URIs, from where these settings allow it."""
        trust = ssl.create_default_context()
        if self.fetch_authorities is not None:
            trust.load_verify_locations(self.fetch_authorities)
        guard = AddressGuard(private_networks(self.fetch_networks))
        limits = FetchLimits(
            max_file_bytes=self.max_file_bytes,
            redirects=self.fetch_redirects,
            connect_seconds=self.fetch_connect_seconds,
            silence_seconds=self.fetch_silence_seconds,
        )
        allowed = AllowList(self.fetch_hosts, self.s3_buckets)
        return Fetcher(allowed, limits, GuardedBackend(guard, resolve), trust, self._storage())

    def batch_limits(self) -> BatchLimits:
        """What one batch may be."""
        return BatchLimits(self.batch_items, self.batch_concurrency)

    def _storage(self) -> S3Storage | None:
        if not self.s3_endpoint:
            return None
        secret = self.s3_secret_key.get_secret_value()
        credentials = S3Credentials(self.s3_access_key, secret, self.s3_region) if self.s3_access_key else None
        return S3Storage(_endpoint(self.s3_endpoint), credentials)


def _endpoint(text: str) -> Target:
    try:
        found = parse_uri(text)
    except InvalidInputError as error:
        raise ValueError(error.message) from error
    if not isinstance(found, Target) or found.path != "/":
        raise ValueError("the endpoint is https://HOST or https://HOST:PORT")
    return found


def _own_directory() -> Path:
    """A directory in the shared one of temporary files, which is nobody else's.

    Raises:
        PermissionError: somebody else made it first.
    """
    directory = Path(tempfile.gettempdir()) / f"bonafide-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if directory.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{directory} is not ours alone: set BONAFIDE_GATEWAY_SPOOL_DIRECTORY")
    return directory
