"""Signed requests to S3: Signature Version 4 of a GET without a body.

Source: Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.gateway.uris import Target

_EMPTY_BODY = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """Who asks, and in which region the endpoint believes itself to be."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str


def signed_headers(
    target: Target, credentials: S3Credentials, now: datetime, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Headers that make a GET of ``target`` (a path without a query) a signed one.

    Args:
        target: what is asked for.
        credentials: who asks.
        now: the time of the request, aware of its zone.
        extra: further headers to sign, by lower-case name.
    """
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": target.authority, "x-amz-content-sha256": _EMPTY_BODY, "x-amz-date": stamp, **(extra or {})}
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name]}\n" for name in sorted(headers)]
    request = "\n".join(["GET", target.path, "", "".join(lines), names, _EMPTY_BODY])
    scope = f"{stamp[:8]}/{credentials.region}/s3/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    granted = f"Credential={credentials.access_key}/{scope},SignedHeaders={names},Signature={signature}"
    return {**headers, "authorization": f"{_ALGORITHM} {granted}"}
