"""The public keys that sign callers' tokens: a JWKS (RFC 7517) from a file or a URL, fetched again in time."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from services.common.connections import is_loopback
from services.common.errors import UnavailableError

FETCH_SECONDS = 5.0
_MOST_BYTES = 256 * 1024
_LEAST_RSA_BITS = 2048
_LEAST_PAUSE_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key and the one algorithm that it is good for, RS256 or ES256."""

    key: RSAPublicKey | EllipticCurvePublicKey
    algorithm: str


def reader(source: str) -> Callable[[], bytes]:
    """How to read a JWKS: from a path, an ``https://`` URL, or an ``http://`` URL on this machine.

    Raises:
        ValueError: another kind of URL.
    """
    url = urllib.parse.urlsplit(source)
    if url.scheme == "https" or (url.scheme == "http" and is_loopback(f"{url.hostname}:{url.port or 80}")):
        return lambda: _download(source)
    if "://" in source:
        raise ValueError(f"{source} is neither a path nor an https URL")
    return Path(source).read_bytes


def parse_key_set(content: bytes) -> dict[str, SigningKey]:
    """The usable keys of a JWKS by their ids; all others are left out.

    Usable are RSA keys of 2048 bits or more for RS256 and P-256 keys for ES256, with a ``kid``, and meant for
    signatures where they say what they are meant for.

    Raises:
        ValueError: it is not a JWKS.
    """
    try:
        entries = json.loads(content)["keys"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("it is not a JWKS") from error
    if not isinstance(entries, list):
        raise ValueError("it is not a JWKS")  # noqa: TRY004 - the content is wrong, not a type of ours
    found = {}
    for entry in entries:
        key = _signing_key(entry) if isinstance(entry, dict) else None
        if key is not None:
            found[str(entry["kid"])] = key
    return found


def _signing_key(entry: Mapping[str, Any]) -> SigningKey | None:
    algorithm = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}.get((str(entry.get("kty")), entry.get("crv")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    if not isinstance(entry.get("kid"), str) or "verify" not in entry.get("key_ops", ["verify"]):
        return None
    try:
        key = jwt.PyJWK(dict(entry), algorithm=algorithm).key
    except jwt.PyJWTError:
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        return None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):  # a private key has no place here
        return None
    return SigningKey(key, algorithm)


class SigningKeys:
    """The keys of one source, fetched on first use, every ``refresh_seconds``, and when an id is unknown.

    A fetch that fails leaves the former keys in force for ``stale_seconds``; it is never begun more often than
    every few seconds, so tokens with invented ids cannot make the gateway flood the source.
    """

    def __init__(
        self,
        read: Callable[[], bytes],
        *,
        refresh_seconds: float,
        stale_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._refresh_seconds = refresh_seconds
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._keys: dict[str, SigningKey] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> SigningKey | None:
        """The key of that id, or None.

        Raises:
            UnavailableError: no keys could be had, now or recently enough (TOKEN_KEYS_UNAVAILABLE).
        """
        fetching = self._fetch_if_due(key_id)
        if fetching is not None and (self._is_stale() or key_id not in self._keys):
            await asyncio.shield(fetching)
        if self._is_stale():
            raise UnavailableError("the keys that sign tokens cannot be had now", reason="TOKEN_KEYS_UNAVAILABLE")
        return self._keys.get(key_id)

    def _is_stale(self) -> bool:
        return self._fetched is None or self._clock() - self._fetched > self._stale_seconds

    def _fetch_if_due(self, key_id: str) -> asyncio.Task[None] | None:
        """The fetch under way, begun now if one is due; None when there is none."""
        if self._fetching is not None:
            return self._fetching
        now = self._clock()
        old = self._fetched is None or now - self._fetched > self._refresh_seconds or key_id not in self._keys
        pause = min(_LEAST_PAUSE_SECONDS, self._refresh_seconds)
        if not old or (self._tried is not None and now - self._tried < pause):
            return None
        self._tried = now
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            self._keys = parse_key_set(await asyncio.to_thread(self._read))
        except (OSError, ValueError, HTTPException, RecursionError) as error:
            _log.warning("the keys that sign tokens cannot be fetched: %s", type(error).__name__)
        else:
            self._fetched = self._clock()
        finally:
            self._fetching = None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        """Nobody is followed elsewhere for the keys that everything rests on."""


def _download(url: str) -> bytes:
    opener = urllib.request.build_opener(_NoRedirects(), urllib.request.ProxyHandler({}))
    with cast("HTTPResponse", opener.open(url, timeout=FETCH_SECONDS)) as answer:
        content = answer.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("the JWKS is too large")
    return content
