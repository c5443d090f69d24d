"""TLS at a server's port, with certificates that change without a restart."""

from __future__ import annotations

from typing import Any

import grpc

from services.common.certificates import Certificates, CertificateStore
from services.common.refusal import ConfigurationError


def add_port(server: grpc.aio.Server, address: str, certificates: CertificateStore | None) -> int:
    """Listen on HOST:PORT; plain text without certificates. Returns the port.

    Where authorities are given a caller must show a certificate of theirs. Certificates are looked at for
    every handshake; connections that are open keep those they began with.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(certificates))
    except RuntimeError as error:  # what grpc raises
        raise ConfigurationError(f"cannot listen on {address}") from error


def _credentials(store: CertificateStore) -> grpc.ServerCredentials:
    used = store.current()

    def renewed() -> Any:  # noqa: ANN401 - a configuration or None; the stubs forget None
        nonlocal used
        current = store.current()
        if current is used:
            return None
        used = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used), renewed, require_client_authentication=used.authorities is not None
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    if certificates.chain is None or certificates.key is None:
        raise ValueError("a server needs a certificate and its key")
    return grpc.ssl_server_certificate_configuration([(certificates.key, certificates.chain)], certificates.authorities)
