"""API keys: made at random, kept as hashes in a file of JSON lines, read again when it changes.

A key has 256 random bits, so one round of SHA-256 is enough to keep it: nothing of it can be guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.files import fingerprint
from services.common.refusal import ConfigurationError
from services.gateway.quotas import Quota

PREFIX = "bf_"
"""What a key begins with, so that scanners of source code can find one that leaked."""

_RANDOM_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "sha256", "requests_per_minute", "concurrent"}
_log = logging.getLogger(__name__)


class KeyFileError(ConfigurationError):
    """A file of keys that cannot be used; the sentence names the line."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key: whose it is, the SHA-256 of its text (hex), and what it may ask."""

    name: str
    sha256: str
    quota: Quota

    def line(self) -> str:
        """It as a line of the file."""
        quota = {"requests_per_minute": self.quota.requests_per_minute, "concurrent": self.quota.concurrent}
        return json.dumps({"name": self.name, "sha256": self.sha256, **quota})


def new_key(name: str, quota: Quota) -> tuple[str, ApiKey]:
    """A key's text, which is to be told once, and what is kept of it.

    Raises:
        ValueError: the name is not 1 to 64 letters, digits, dots, dashes or underscores.
    """
    _check_name(name)
    text = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return text, ApiKey(name, _hash(text), quota)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a file of keys; several lines may have one name, as while a key is replaced.

    Raises:
        KeyFileError: it cannot be read, or a line is not a key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} cannot be read as a file of API keys") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            keys.append(_parse(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise KeyFileError(f"line {number} of {path} is not an API key: {error}") from error
    return tuple(keys)


class KeyRing:
    """The keys in force: those of the last time that the file was usable."""

    def __init__(self, path: Path) -> None:
        """Read the file now.

        Raises:
            KeyFileError: it cannot be used.
        """
        self._path = path
        self._fingerprint = fingerprint([path])
        self._keys = read_keys(path)

    def find(self, text: str) -> ApiKey | None:
        """The key of that text; takes the same time whichever it is, and whether there is one or not."""
        self._renew_if_changed()
        given = _hash(text)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, given):
                found = key
        return found

    def _renew_if_changed(self) -> None:
        found = fingerprint([self._path])
        if found == self._fingerprint:
            return
        self._fingerprint = found
        try:
            self._keys = read_keys(self._path)
        except KeyFileError as error:
            _log.warning("the API keys changed and cannot be used, so the former stay: %s", error)
        else:
            _log.info("the API keys changed: %d are in force", len(self._keys))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError("a name is 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit")


def _parse(fields: dict[str, Any]) -> ApiKey:
    if unknown := sorted(set(fields) - _FIELDS):
        raise ValueError(f"unknown field {unknown[0]}")
    name, sha256 = str(fields["name"]), str(fields["sha256"])
    _check_name(name)
    if not _SHA256.fullmatch(sha256):
        raise ValueError("sha256 is not 64 lower-case hex digits")
    limits = (fields.get("requests_per_minute", 0), fields.get("concurrent", 0))
    if not all(isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0 for limit in limits):
        raise ValueError("requests_per_minute and concurrent are whole numbers from 0")
    return ApiKey(name, sha256, Quota(*limits))
