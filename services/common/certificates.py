"""Certificate files that may change while a service runs: read again when they do, and checked before use."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.common.files import fingerprint
from services.common.refusal import ConfigurationError

_log = logging.getLogger(__name__)


class CertificateError(ConfigurationError):
    """Certificate files that cannot be used; the sentence says which and why."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM texts: our chain and its key (both or neither), and the authorities we trust (or none)."""

    chain: bytes | None
    key: bytes | None
    authorities: bytes | None


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the PEM files of a Certificates are."""

    chain: Path | None = None
    key: Path | None = None
    authorities: Path | None = None

    def __bool__(self) -> bool:
        return any(self.paths())

    def read(self) -> Certificates:
        """Read and check them.

        Raises:
            CertificateError: a file is missing or not PEM, the key is not that of the certificate, or the
                certificate has expired.
        """
        chain, key, authorities = (_read(path) for path in (self.chain, self.key, self.authorities))
        if chain is not None and key is not None:
            self._check_pair(chain, key)
        if authorities is not None:
            _parse(authorities, self.authorities)
        return Certificates(chain, key, authorities)

    def paths(self) -> Iterator[Path]:
        """Those that are given."""
        return (path for path in (self.chain, self.key, self.authorities) if path is not None)

    def _check_pair(self, chain: bytes, key: bytes) -> None:
        leaf = _parse(chain, self.chain)[0]
        try:
            private = load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise CertificateError(f"{self.key} holds no private key in PEM without a password") from error
        if private.public_key() != leaf.public_key():
            raise CertificateError(f"{self.key} is not the key of {self.chain}")
        if leaf.not_valid_after_utc <= dt.datetime.now(dt.UTC):
            raise CertificateError(f"{self.chain} expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")


class CertificateStore:
    """The certificates in force: those of the last time the files were usable. Safe between threads."""

    def __init__(self, files: CertificateFiles) -> None:
        """Read the files now.

        Raises:
            CertificateError: they cannot be used.
        """
        self._files = files
        self._lock = threading.Lock()
        self._fingerprint = fingerprint(files.paths())
        self._current = files.read()

    def current(self) -> Certificates:
        """The certificates in force; the same object until the files have changed to usable ones."""
        with self._lock:
            found = fingerprint(self._files.paths())
            if found != self._fingerprint:
                self._fingerprint = found
                self._renew()
            return self._current

    def _renew(self) -> None:
        # A half-written pair is refused here and read again when the other file follows.
        try:
            self._current = self._files.read()
        except CertificateError as error:
            _log.warning("the certificates changed and cannot be used, so the former stay: %s", error)
        else:
            _log.info("the certificates changed and are in force")


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error


def _parse(pem: bytes, path: Path | None) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate in PEM") from error
