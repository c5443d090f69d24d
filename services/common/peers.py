"""Which services may call a service: the SPIFFE ids in their certificates, checked against a list."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence

from cryptography import x509

from services.common.errors import PermissionDeniedError, UnauthenticatedError
from services.common.guard import Context


class PeerAllowList:
    """Admits calls whose certificate, which TLS has verified, carries one of the ids.

    The end of its validity is looked at again for every call, because a connection outlives its handshake.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(allowed)

    async def admit(self, context: Context) -> None:
        """Let a call in.

        Raises:
            UnauthenticatedError: the certificate has expired (CERTIFICATE_EXPIRED).
            PermissionDeniedError: its id is not on the list (PEER_NOT_ALLOWED).
        """
        for certificate in context.auth_context().get("x509_pem_cert", ()):
            if _expiry(bytes(certificate)) <= dt.datetime.now(dt.UTC):
                raise UnauthenticatedError("the certificate has expired", reason="CERTIFICATE_EXPIRED")
        if spiffe_id(context) not in self._allowed:
            raise PermissionDeniedError("this service does not serve that certificate", reason="PEER_NOT_ALLOWED")


def spiffe_id(context: Context) -> str:
    """The SPIFFE id of the caller's certificate; empty without one, or where gRPC finds none that is valid."""
    found = [bytes(name).decode() for name in context.auth_context().get("peer_spiffe_id", ())]
    return found[0] if len(found) == 1 else ""


@functools.lru_cache(maxsize=256)
def _expiry(pem: bytes) -> dt.datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc
