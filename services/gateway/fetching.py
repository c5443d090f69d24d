"""Fetching clips by URI, from nowhere but where the operator allows it.

No proxy, cookie or credential of the surroundings is ever used, and every redirect is checked like a URI.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpcore

from services.common.errors import (
    LimitExceededError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from services.gateway.addresses import GuardedBackend, not_allowed
from services.gateway.s3_signing import S3Credentials, signed_headers
from services.gateway.uris import AllowList, S3Object, Target, parse_uri, redirected

_OK = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MISSING = frozenset({404, 410})
_BUSY = frozenset({429, 500, 502, 503, 504})
_LONGEST_WAIT_SECONDS = 600.0
_WIRE_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may cost: bytes of the file, redirects followed, seconds to connect and of silence."""

    max_file_bytes: int
    redirects: int
    connect_seconds: float
    silence_seconds: float


@dataclass(frozen=True, slots=True)
class S3Storage:
    """Where objects are; without credentials they are asked for anonymously."""

    endpoint: Target
    credentials: S3Credentials | None = None


class Fetcher:
    """Fetches files over HTTPS.

    Args:
        allowed: hosts and buckets.
        limits: of one fetch.
        backend: opens connections, to checked addresses only.
        trust: authorities that vouch for hosts.
        storage: where ``s3://`` leads; None when nowhere.
        now: the time, for signatures.
    """

    def __init__(
        self,
        allowed: AllowList,
        limits: FetchLimits,
        backend: GuardedBackend,
        trust: ssl.SSLContext,
        storage: S3Storage | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._allowed = allowed
        self._limits = limits
        self._backend = backend
        self._trust = trust
        self._storage = storage
        self._now = now

    async def fetch(self, uri: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a file as they arrive.

        Raises:
            InvalidInputError: the URI cannot be read (INVALID_URI).
            PermissionDeniedError: it, or a redirect, leads where nothing may be fetched (URI_NOT_ALLOWED).
            NotFoundError: there is no such file (URI_NOT_FOUND).
            PreconditionError: its host refuses (URI_REFUSED), or redirects too often (TOO_MANY_REDIRECTS).
            LimitExceededError: it is too large (FILE_TOO_LARGE).
            UnavailableError: its host cannot be reached, or fails (URI_UNREACHABLE).
        """
        target, headers, redirects = self._request(uri)
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._trust, network_backend=self._backend, max_keepalive_connections=0
        )
        with _failures():
            async with pool:
                for _ in range(redirects + 1):
                    async with self._answer(pool, target, headers) as response:
                        if response.status not in _REDIRECTS:
                            self._check(response)
                            async for chunk in response.aiter_stream():
                                yield chunk
                            return
                        target = redirected(target, _header(response, b"location"))
                    self._allowed.check_target(target)
                    headers = {}
        raise PreconditionError("the URI leads from redirect to redirect", reason="TOO_MANY_REDIRECTS")

    def _request(self, uri: str) -> tuple[Target, dict[str, str], int]:
        """What to ask for first, with which headers, and how many redirects to follow."""
        found = parse_uri(uri)
        if isinstance(found, Target):
            self._allowed.check_target(found)
            return found, {}, self._limits.redirects
        self._allowed.check_object(found)
        return *self._object_request(found), 0  # a signature holds for one host and one path

    def _object_request(self, found: S3Object) -> tuple[Target, dict[str, str]]:
        if self._storage is None:
            raise not_allowed()
        target = found.at(self._storage.endpoint)
        if self._storage.credentials is None:
            return target, {}
        return target, signed_headers(target, self._storage.credentials, self._now())

    def _answer(
        self, pool: httpcore.AsyncConnectionPool, target: Target, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[httpcore.Response]:
        url = httpcore.URL(scheme=b"https", host=target.host.encode(), port=target.port, target=target.path.encode())
        seconds = {"connect": self._limits.connect_seconds, "read": self._limits.silence_seconds}
        wanted = {"host": target.authority, "accept-encoding": "identity", "user-agent": "bonafide", **headers}
        return pool.stream(
            "GET",
            url,
            headers=[(name.encode(), value.encode()) for name, value in wanted.items()],
            extensions={"timeout": {**seconds, "write": seconds["read"], "pool": seconds["connect"]}},
        )

    def _check(self, response: httpcore.Response) -> None:
        """Refuse an answer by its head."""
        _check_status(response)
        if _header(response, b"content-encoding") not in {"", "identity"}:
            raise PreconditionError("the host sends the file encoded", reason="URI_REFUSED")
        size = _header(response, b"content-length")
        if size.isdecimal() and int(size) > self._limits.max_file_bytes:
            limit = self._limits.max_file_bytes
            raise LimitExceededError(f"the file is larger than {limit} bytes", reason="FILE_TOO_LARGE")


def _check_status(response: httpcore.Response) -> None:
    if response.status == _OK:
        return
    if response.status in _MISSING:
        raise NotFoundError("there is no file at this URI", reason="URI_NOT_FOUND")
    if response.status in _BUSY:
        wait = _header(response, b"retry-after")
        seconds = min(float(wait), _LONGEST_WAIT_SECONDS) if wait.isdecimal() else None
        raise UnavailableError(
            f"the host of the URI fails with status {response.status}",
            reason="URI_UNREACHABLE",
            retry_after_seconds=seconds,
        )
    raise PreconditionError(f"the host of the URI answers with status {response.status}", reason="URI_REFUSED")


def _header(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


@contextmanager
def _failures() -> Iterator[None]:
    """Whatever goes wrong on the wire is one error, which tells nothing of the network behind us."""
    try:
        yield
    except _WIRE_ERRORS as error:
        raise UnavailableError("the host of the URI cannot be reached", reason="URI_UNREACHABLE") from error
