"""A small HTTPS host on loopback that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from services.common.certificates import CertificateFiles


@dataclass
class Host:
    """``answers`` maps a path to the raw bytes of a response; a path that is missing is a 404."""

    files: CertificateFiles
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    holds: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def holding(self) -> AsyncIterator[None]:
        """Within the block connections stay open after the answer; ``left`` is set when the caller closes one."""
        self.holds = True
        try:
            yield
        finally:
            self.holds = False

    @asynccontextmanager
    async def listening(self, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[None]:
        """Serve within the block."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.files.chain, self.files.key)
        context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        server = await asyncio.start_server(self._serve, address, port, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            answer = self.answers.get(head.split(" ")[1], b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            if answer:
                writer.write(answer)
                await writer.drain()
            if not answer or self.holds:
                await reader.read()  # silence, until the caller has had enough
                self.left.set()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def ok(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A response with a body."""
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: int = 302) -> bytes:
    """A response that leads elsewhere."""
    return f"HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


def failing(status: int, *headers: str) -> bytes:
    """A response without a body."""
    return "\r\n".join([f"HTTP/1.1 {status} No", "content-length: 0", *headers]).encode() + b"\r\n\r\n"
