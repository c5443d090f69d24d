"""What a URI points at, and whether the operator lets it be fetched. Whoever fetches uses these parts alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

from services.common.errors import InvalidInputError
from services.gateway.addresses import not_allowed

HTTPS_PORT = 443
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# The last label holds a letter: no number in any spelling (dotted, decimal, hexadecimal) passes for a name.
_HOST = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*(?=[a-z0-9-]*[a-z])(?!0x)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61}[a-z0-9])")
_MAX_HOST = 253


@dataclass(frozen=True, slots=True)
class Target:
    """One HTTPS request: host name, port, and path with query as they go over the wire."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The Host header."""
        return self.host if self.port == HTTPS_PORT else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"https://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object in a bucket."""

    bucket: str
    key: str

    def at(self, endpoint: Target) -> Target:
        """The request for it, with the bucket in the path, so that no bucket can name a host."""
        return Target(endpoint.host, endpoint.port, f"/{self.bucket}/{quote(self.key, safe='/~')}")


class AllowList:
    """Hosts and buckets that may be fetched from; both empty means none.

    Args:
        hosts: ``media.example.org``, ``media.example.org:8443``, or ``*.example.org`` for every name below it.
        buckets: names of buckets.
    """

    def __init__(self, hosts: Iterable[str] = (), buckets: Iterable[str] = ()) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._buckets = frozenset(buckets)

    def check_target(self, target: Target) -> None:
        """Refuse a host that is not listed.

        Raises:
            PermissionDeniedError: it is not (URI_NOT_ALLOWED).
        """
        labels = target.authority.split(".")
        above = {"*." + ".".join(labels[place:]) for place in range(1, len(labels))}
        if not self._hosts & {target.authority, *above}:
            raise not_allowed()

    def check_object(self, found: S3Object) -> None:
        """Refuse a bucket that is not listed.

        Raises:
            PermissionDeniedError: it is not (URI_NOT_ALLOWED).
        """
        if found.bucket not in self._buckets:
            raise not_allowed()


def parse_uri(uri: str) -> Target | S3Object:
    """Take a URI apart.

    Raises:
        InvalidInputError: it is neither https:// nor s3://, holds credentials, a fragment or characters that do
            not belong into a URI, or names its host by number (INVALID_URI).
    """
    if not _PRINTABLE.fullmatch(uri) or "\\" in uri:
        raise _invalid("a URI holds visible ASCII characters only; encode others with %")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise _invalid("the URI cannot be read") from error
    if "@" in parts.netloc:
        raise _invalid("a URI must not hold credentials")
    if parts.fragment:
        raise _invalid("a URI must not hold a fragment")
    if parts.scheme == "https":
        return _target(parts.netloc, port, parts.path, parts.query)
    if parts.scheme == "s3":
        return _object(parts.netloc, parts.path, parts.query)
    raise _invalid("a URI begins with https:// or s3://")


def redirected(target: Target, location: str) -> Target:
    """Where a redirect leads.

    Raises:
        InvalidInputError: nowhere that could be fetched (INVALID_URI).
    """
    found = parse_uri(urljoin(target.url, location).partition("#")[0])
    if not isinstance(found, Target):
        raise _invalid("a redirect leads to no https:// URI")
    return found


def _target(netloc: str, port: int | None, path: str, query: str) -> Target:
    host = netloc.partition(":")[0].lower()
    if len(host) > _MAX_HOST or not _HOST.fullmatch(host) or port == 0:
        raise _invalid("the URI names no host that could be fetched from")
    return Target(host, port or HTTPS_PORT, (path or "/") + (f"?{query}" if query else ""))


def _object(bucket: str, path: str, query: str) -> S3Object:
    key = unquote(path[1:])
    if not _BUCKET.fullmatch(bucket) or not key or query or any(part in {".", ".."} for part in key.split("/")):
        raise _invalid("an object is named s3://BUCKET/KEY")
    return S3Object(bucket, key)


def _invalid(text: str) -> InvalidInputError:
    return InvalidInputError(text, reason="INVALID_URI")
