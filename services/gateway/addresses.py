"""Which addresses a fetch may connect to: public ones, and private networks that the operator names.

Names are resolved once, every address of the answer is looked at, and the connection goes to one of exactly
those. A name server that answers something else the next time is never asked again.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpcore

from services.common.errors import PermissionDeniedError

Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Numeric addresses of a host name and a port."""

# This machine, its platform's own services, and addresses that wrap another one: never, whatever their number
# says. ``ipaddress`` knows the rest (private, shared, documentation, …).
_NEVER = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "168.63.129.16/32",  # platform services of Azure
        "192.0.0.0/24",  # IETF protocol assignments; metadata of Oracle Cloud
        "192.88.99.0/24",  # relays into 6to4
        "224.0.0.0/3",  # multicast and reserved
        "::/8",  # unspecified, loopback, IPv4-compatible, NAT64
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2002::/16",  # 6to4
        "fd00:ec2::/32",  # metadata of Amazon
        "fe80::/9",  # link-local and site-local
        "ff00::/8",  # multicast
    )
)
_GLOBAL_UNICAST = ip_network("2000::/3")


class AddressGuard:
    """Knows which addresses may be connected to.

    Args:
        private: networks that may be although they are not public.
    """

    def __init__(self, private: Iterable[Network] = ()) -> None:
        self._private = tuple(private)

    def permits(self, address: str) -> bool:
        """Whether a numeric address may be connected to."""
        try:
            number = ip_address(address)
        except ValueError:
            return False
        if isinstance(number, IPv6Address) and number.ipv4_mapped is not None:
            number = number.ipv4_mapped
        if any(_within(number, network) for network in self._private):
            return True
        if any(_within(number, network) for network in _NEVER):
            return False
        return number.is_global and (number.version == 4 or _within(number, _GLOBAL_UNICAST))  # noqa: PLR2004

    def check(self, addresses: Sequence[str]) -> None:
        """Refuse a host of which a single address is not permitted.

        Raises:
            PermissionDeniedError: one is not, or there is none (URI_NOT_ALLOWED).
        """
        if not addresses or not all(self.permits(address) for address in addresses):
            raise not_allowed()


def private_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks of an operator's own, in CIDR notation.

    Raises:
        ValueError: one is no network, is not private, or reaches this machine or its platform's services.
    """
    networks = tuple(ip_network(text) for text in texts)
    for network in networks:
        if not network.is_private or any(_overlap(network, never) for never in _NEVER):
            raise ValueError(f"{network} is not a private network that may be fetched from")
    return networks


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections for the HTTP client, to addresses that were checked just before.

    The client speaks TLS and HTTP with the name; only the connection below them goes by number.
    """

    def __init__(self, guard: AddressGuard, resolve: Resolver) -> None:
        self._guard = guard
        self._resolve = resolve
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check every address, connect to the first that answers.

        Raises:
            PermissionDeniedError: an address of the host is not permitted (URI_NOT_ALLOWED).
            httpcore.ConnectError, httpcore.ConnectTimeout: none answers.
        """
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError from error
        self._guard.check(addresses)
        failure: Exception = httpcore.ConnectError()
        for address in addresses:
            try:
                return await self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Never: nothing is fetched from this machine."""
        raise not_allowed()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def not_allowed() -> PermissionDeniedError:
    """The one refusal of everything outside the list, so that it tells nothing of what is there."""
    return PermissionDeniedError("this URI is not one that may be fetched", reason="URI_NOT_ALLOWED")


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _within(number: IPv4Address | IPv6Address, network: Network) -> bool:
    return number.version == network.version and number in network
