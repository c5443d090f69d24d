"""How a client finds the gateway and shows who it is. Shared by both clients."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

ADDRESS_VARIABLE = "BONAFIDE_SERVER"
DEFAULT_ADDRESS = "127.0.0.1:8500"
"""Where ``bonafide up`` listens."""

API_KEY_HEADER = "x-api-key"
TOKEN_HEADER = "authorization"  # noqa: S105 - the header's name
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_SERVICE = "bonafide.v1.AnalysisService"
_SERVICE_CONFIG = {
    # Every call goes to the next server that says it is healthy; retries are the client's own, not gRPC's.
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": _SERVICE},
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who the caller is (by key, token or certificate) and whom it trusts.

    Attributes:
        api_key: key that the gateway knows the hash of; empty for none.
        token: bearer token (JWT), or a function that answers one that is still valid; called for each try.
        tls: speak TLS. Any of the next four implies it.
        root_certificates: PEM file of the authorities to trust; the system's when None.
        certificate: PEM file of this client's own certificate chain, for mutual TLS.
        private_key: PEM file of its key.
        server_name: name to expect in the server's certificate, when it is not that of the address.
        allow_plain_text: send without TLS to other machines too. Keys and tokens can then be read on the way.
    """

    api_key: str = field(default="", repr=False)
    token: str | Callable[[], str] = field(default="", repr=False)
    tls: bool = False
    root_certificates: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    server_name: str = ""
    allow_plain_text: bool = False

    def __post_init__(self) -> None:
        if self.api_key and self.token:
            raise ValueError("show an API key or a token, not both: a server cannot know which is meant")

    @property
    def encrypted(self) -> bool:
        """Whether these ask for TLS."""
        return self.tls or bool(self.root_certificates or self.certificate or self.private_key or self.server_name)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Headers of one try."""
        headers = []
        if self.api_key:
            headers.append((API_KEY_HEADER, self.api_key))
        token = self.token if isinstance(self.token, str) else self.token()
        if token:
            headers.append((TOKEN_HEADER, f"Bearer {token}"))
        return tuple(headers)

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """What gRPC needs to open the channel; None for plain text.

        Raises:
            OSError: a file cannot be read.
        """
        if not self.encrypted:
            return None
        return grpc.ssl_channel_credentials(
            _bytes(self.root_certificates), _bytes(self.private_key), _bytes(self.certificate)
        )


@dataclass(frozen=True, slots=True)
class Target:
    """Where the gateway is, ready to be opened as a channel of either kind."""

    address: str
    credentials: Credentials

    @classmethod
    def of(cls, address: str | Sequence[str] | None, credentials: Credentials) -> Target:
        """The target of HOST:PORT, of any gRPC name (``dns:///…``), or of several IP:PORT.

        Raises:
            ValueError: several addresses that are not all IP:PORT of one family, or plain text to another
                machine that ``allow_plain_text`` does not allow.
        """
        given = address or os.environ.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS)
        name = given if isinstance(given, str) else _joined(given)
        each = [given] if isinstance(given, str) else given
        if not credentials.encrypted and not credentials.allow_plain_text and not all(map(_is_loopback, each)):
            raise ValueError(f"{name} is another machine: use TLS, or allow_plain_text to go without")
        return cls(name, credentials)

    def options(self) -> list[tuple[str, Any]]:
        """Channel arguments."""
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.enable_retries", 0),
            # A server that comes back, or a new one behind a name, is noticed within about a second.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.dns_min_time_between_resolutions_ms", 1000),
        ]
        if self.credentials.server_name:
            options.append(("grpc.ssl_target_name_override", self.credentials.server_name))
        return options


def _joined(addresses: Sequence[str]) -> str:
    """Several IP:PORT as one gRPC target."""
    hosts = [_ip(address) for address in addresses]
    families = {host.version for host in hosts if host is not None}
    if None in hosts or len(families) != 1:
        raise ValueError("several addresses must all be IP:PORT of one family; for names use one dns:///NAME:PORT")
    return f"ipv{families.pop()}:{','.join(addresses)}"


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return None


def _is_loopback(address: str) -> bool:
    """Whether an address is surely this machine's own."""
    scheme, found, rest = address.partition(":")
    if found and scheme in {"unix", "unix-abstract"}:
        return True
    plain = rest.rpartition("/")[2] if found and scheme in {"dns", "ipv4", "ipv6"} else address
    for each in plain.split(","):
        host = _ip(each)
        if not (host.is_loopback if host is not None else each.rpartition(":")[0] == "localhost"):
            return False
    return True


def _bytes(file: Path | None) -> bytes | None:
    return file.read_bytes() if file is not None else None
