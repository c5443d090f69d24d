"""A name server on loopback: one name, whose addresses a test changes as pods come and go."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

_ADDRESS_RECORD = 1
_INTERNET = 1


class Names(asyncio.DatagramProtocol):
    """Answers every question of type A with ``addresses``, valid for no time; everything else with nothing."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        end = data.index(b"\0", 12) + 5
        question = data[12:end]
        (kind,) = struct.unpack_from("!H", question, len(question) - 4)
        addresses = self.addresses if kind == _ADDRESS_RECORD else []
        head = data[:2] + struct.pack("!HHHHH", 0x8180, 1, len(addresses), 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, _ADDRESS_RECORD, _INTERNET, 0, 4)
        self._transport.sendto(head + question + b"".join(record + socket.inet_aton(each) for each in addresses), addr)


@asynccontextmanager
async def name_server(addresses: list[str]) -> AsyncIterator[Names]:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(lambda: Names(addresses), local_addr=("127.0.0.1", 0))
    try:
        yield names
    finally:
        transport.close()
