"""One factory for channels between our services: balanced, health-checked, retried, with deadlines, renewed."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from services.common.certificates import Certificates, CertificateStore
from services.common.connections import client_options
from services.common.hops import LeavingHop

DEFAULT_TIMEOUT_SECONDS = 60.0
"""Deadline of a call that is made without one."""

Dial = Callable[[Certificates | None], grpc.aio.Channel]


def open_channel(
    address: str,
    *,
    max_message_bytes: int,
    service: str = "",
    certificates: CertificateStore | None = None,
    server_name: str = "",
    default_timeout: float = DEFAULT_TIMEOUT_SECONDS,
) -> ServiceChannel:
    """A channel to a service of ours.

    Every address behind the name is used in turn; those whose health says NOT_SERVING are left out; a call
    that meets UNAVAILABLE is tried again (gRFC A6), so call only what is idempotent.

    Args:
        address: HOST:PORT, where HOST may stand for many addresses; or a target with a scheme of gRPC's.
        max_message_bytes: largest message either way.
        service: full gRPC name whose health is watched; no health checking when empty.
        certificates: authorities to trust, and our own certificate; plain text without them.
        server_name: name that the server's certificate must carry; the host of ``address`` when empty.
        default_timeout: seconds a call may take that is made without a timeout.
    """
    target = address if "//" in address or address.startswith(("ipv4:", "ipv6:", "unix:")) else f"dns:///{address}"
    options = [*client_options(max_message_bytes), ("grpc.service_config", json.dumps(_service_config(service)))]
    if server_name:
        options += [("grpc.ssl_target_name_override", server_name), ("grpc.default_authority", server_name)]

    def dial(current: Certificates | None) -> grpc.aio.Channel:
        if current is None:
            return grpc.aio.insecure_channel(target, options=options, interceptors=[LeavingHop()])
        credentials = grpc.ssl_channel_credentials(current.authorities, current.key, current.chain)
        return grpc.aio.secure_channel(target, credentials, options=options, interceptors=[LeavingHop()])

    return ServiceChannel(dial, certificates, default_timeout)


def _service_config(service: str) -> dict[str, Any]:
    """Deadlines are never here: a service-config timeout fires early in Python and is not sent to the server."""
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
    if service:
        config["healthCheckConfig"] = {"serviceName": service}
    return config


class _Line:
    """One underlying channel, and how many calls are under way on it."""

    def __init__(self, channel: grpc.aio.Channel, certificates: Certificates | None) -> None:
        self.channel = channel
        self.certificates = certificates
        self.idle = asyncio.Event()
        self.idle.set()
        self._calls = 0

    def began(self, call: Any) -> None:  # noqa: ANN401 - any of gRPC's four kinds of call
        self._calls += 1
        self.idle.clear()
        call.add_done_callback(self._ended)

    def _ended(self, _call: object) -> None:
        self._calls -= 1
        if not self._calls:
            self.idle.set()


class ServiceChannel(grpc.aio.Channel):
    """A channel that gives every call a deadline and survives a change of certificates.

    gRPC binds certificates to a channel for good, so a change opens a new channel for later calls; the old
    one is closed when its last call has ended.
    """

    def __init__(self, dial: Dial, certificates: CertificateStore | None, default_timeout: float) -> None:
        self._dial = dial
        self._certificates = certificates
        self._default_timeout = default_timeout
        self._retired: set[asyncio.Task[None]] = set()
        self._line = self._open(certificates.current() if certificates else None)

    def _open(self, certificates: Certificates | None) -> _Line:
        return _Line(self._dial(certificates), certificates)

    def _current(self) -> _Line:
        if self._certificates is not None:
            certificates = self._certificates.current()
            if certificates is not self._line.certificates:
                task = asyncio.ensure_future(_close_when_idle(self._line))
                self._retired.add(task)
                task.add_done_callback(self._retired.discard)
                self._line = self._open(certificates)
        return self._line

    def _call(self, kind: str, method: tuple[Any, ...], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        line = self._current()
        if options.get("timeout") is None:
            options["timeout"] = self._default_timeout
        call = getattr(line.channel, kind)(*method)(*arguments, **options)
        line.began(call)
        return call

    def _method(self, kind: str, *method: Any) -> Any:  # noqa: ANN401
        return functools.partial(self._call, kind, method)

    def unary_unary(  # noqa: D102 - as in grpc.aio.Channel, like the methods that follow
        self,
        method: str,
        request_serializer: Any = None,  # noqa: ANN401
        response_deserializer: Any = None,  # noqa: ANN401
        _registered_method: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:  # noqa: ANN401
        return self._method("unary_unary", method, request_serializer, response_deserializer)

    def unary_stream(  # noqa: D102
        self,
        method: str,
        request_serializer: Any = None,  # noqa: ANN401
        response_deserializer: Any = None,  # noqa: ANN401
        _registered_method: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:  # noqa: ANN401
        return self._method("unary_stream", method, request_serializer, response_deserializer)

    def stream_unary(  # noqa: D102
        self,
        method: str,
        request_serializer: Any = None,  # noqa: ANN401
        response_deserializer: Any = None,  # noqa: ANN401
        _registered_method: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:  # noqa: ANN401
        return self._method("stream_unary", method, request_serializer, response_deserializer)

    def stream_stream(  # noqa: D102
        self,
        method: str,
        request_serializer: Any = None,  # noqa: ANN401
        response_deserializer: Any = None,  # noqa: ANN401
        _registered_method: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:  # noqa: ANN401
        return self._method("stream_stream", method, request_serializer, response_deserializer)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: D102, FBT001, FBT002
        return self._current().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:  # noqa: D102
        await self._current().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:  # noqa: D102
        await self._current().channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """Close it; calls under way have ``grace`` seconds to end, none without it."""
        await self._line.channel.close(grace)
        for task in tuple(self._retired):
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _close_when_idle(line: _Line) -> None:
    try:
        await line.idle.wait()
    finally:
        await line.channel.close()
