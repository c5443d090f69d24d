"""Triton's own client, with TLS whose certificates may change while it is used."""

from __future__ import annotations

from typing import Any

import grpc
import tritonclient.grpc.aio as triton
from tritonclient.grpc import service_pb2_grpc

from services.common.certificates import Certificates, CertificateStore
from services.common.channels import DEFAULT_TIMEOUT_SECONDS, ServiceChannel

Options = list[tuple[str, Any]]


def open_triton(address: str, options: Options, certificates: CertificateStore | None) -> triton.InferenceServerClient:
    """A client of the server at HOST:PORT; plain text without certificates."""
    if certificates is None:
        return triton.InferenceServerClient(url=address, channel_args=options)
    return _RenewingClient(address, options, certificates)


class _RenewingClient(triton.InferenceServerClient):  # type: ignore[misc]  # tritonclient is untyped
    """Puts a channel of ours in the place of the client's own, which knows one set of certificates for good."""

    def __init__(self, address: str, options: Options, certificates: CertificateStore) -> None:
        super().__init__(url=address, channel_args=options)  # connects at the first call, and there will be none

        def dial(current: Certificates | None) -> grpc.aio.Channel:
            assert current is not None
            credentials = grpc.ssl_channel_credentials(current.authorities, current.key, current.chain)
            return grpc.aio.secure_channel(address, credentials, options=options)

        self._channel = ServiceChannel(dial, certificates, DEFAULT_TIMEOUT_SECONDS)
        self._client_stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
