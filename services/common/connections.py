"""How connections are kept, aged and bounded: both ends of every hop, in one place because they must match.

A client that pings more often than its server permits is cut off, new replicas are found only when old
connections end *and* the client may ask the resolver again, and a dead peer is noticed only by a ping.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Options = list[tuple[str, int | str]]

PING_SECONDS = 10
"""A client's ping on a silent connection; a dead peer costs at most this and PING_TIMEOUT_SECONDS."""

PING_TIMEOUT_SECONDS = 10
"""Not shorter: on a slow line a ping waits behind what the socket holds already."""

LEAST_PING_SECONDS = 5
"""Pings closer than this are strikes; the second-but-one strike ends the connection."""

RESOLUTION_SECONDS = 1
"""Least time between two look-ups of a name; gRPC's own default of 30 hides new replicas for as long."""

METADATA_BYTES = 16 * 1024
HANDSHAKE_SECONDS = 10
_PING_STRIKES = 2

# It is this one that decides, not keepalive_timeout: with its default of a minute, grpcio 1.81 left calls with a
# stopped server for longer than 35 s, with 5 s it ended them within 15 s (both with keepalive of 10 and 5 s).
_PING_TIMEOUT = ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_SECONDS * 1000)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a server grants: message bytes, open connections, calls on one, and its age in seconds.

    Calls that are under way when a connection reaches its age go on for ``grace_seconds``.
    """

    message_bytes: int
    connections: int
    streams: int
    age_seconds: float
    grace_seconds: float


def server_options(limits: ConnectionLimits) -> Options:
    """Channel arguments of a server."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", 2 * METADATA_BYTES),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
        ("grpc.max_connection_age_ms", round(limits.age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", round(limits.grace_seconds * 1000)),
        ("grpc.keepalive_time_ms", 2 * PING_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_SECONDS * 1000),
        _PING_TIMEOUT,
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_SECONDS * 1000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", LEAST_PING_SECONDS * 1000),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
    ]


def client_options(message_bytes: int) -> Options:
    """Channel arguments of a client of ours; matched to ``server_options``."""
    return [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", message_bytes),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.keepalive_time_ms", PING_SECONDS * 1000),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_SECONDS * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        _PING_TIMEOUT,
        ("grpc.dns_min_time_between_resolutions_ms", RESOLUTION_SECONDS * 1000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # A call can be tried again only while all it sent is kept: calls between services are idempotent.
        ("grpc.per_rpc_retry_buffer_size", message_bytes),
    ]


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT (with or without a gRPC scheme) stays on this machine."""
    if address.startswith("unix:"):
        return True
    hosts = address.rpartition("/")[2].removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:")
    return all(_is_loopback_host(host.rpartition(":")[0].strip("[]")) for host in hosts.split(","))


def _is_loopback_host(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
