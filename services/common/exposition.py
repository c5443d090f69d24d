"""The port that Prometheus scrapes: GET /metrics over plain HTTP, and nothing else.

A scrape is bounded in time and their number is bounded too, so that a slow or a hostile scraper costs a
connection and no more. Text is made on a thread of its own: the event loop never waits for it.
"""

from __future__ import annotations

import asyncio
import gzip
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client.exposition import choose_encoder

from services.common.refusal import ConfigurationError
from services.common.telemetry import Telemetry

PATH = "/metrics"
MOST_CONNECTIONS = 16
SCRAPE_SECONDS = 10.0
"""Longest time for one scrape, from the connection to its last byte."""
_HEAD_BYTES = 16 * 1024
_WORDS_OF_A_REQUEST = 3


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]


class Exposition:
    """Serves the metrics of one process; lives on one event loop."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._server: asyncio.Server | None = None
        self._scrapes: set[asyncio.Task[None]] = set()

    async def start(self, address: str) -> int:
        """Listen on HOST:PORT; answers the port.

        Raises:
            ConfigurationError: that is not an address, or it cannot be listened on.
        """
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            raise ConfigurationError(f"cannot listen on {address}: it is not HOST:PORT")
        try:
            self._server = await asyncio.start_server(self._accept, host.strip("[]"), int(port), limit=_HEAD_BYTES)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"cannot listen on {address}") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, and end scrapes that are under way."""
        if self._server is not None:
            self._server.close()
        for scrape in self._scrapes:
            scrape.cancel()
        await asyncio.gather(*self._scrapes, return_exceptions=True)
        self._renderer.shutdown(wait=False)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._scrapes) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        scrape = asyncio.ensure_future(self._scrape(reader, writer))
        self._scrapes.add(scrape)
        scrape.add_done_callback(self._scrapes.discard)

    async def _scrape(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # who asked is gone, or too slow
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            request = _parse(await reader.readuntil(b"\r\n\r\n"))
        except (ValueError, asyncio.LimitOverrunError):
            return _response(HTTPStatus.BAD_REQUEST)
        if request.path != PATH:
            return _response(HTTPStatus.NOT_FOUND)
        if request.method not in {"GET", "HEAD"}:
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        self._telemetry.refresh()
        loop = asyncio.get_running_loop()
        headers, body = await loop.run_in_executor(self._renderer, self._render, request.headers)
        return _response(HTTPStatus.OK, headers, body, send_body=request.method == "GET")

    def _render(self, asked: dict[str, str]) -> tuple[dict[str, str], bytes]:
        """Plain text, or OpenMetrics with exemplars for who accepts it; compressed for who accepts that."""
        encode, content_type = choose_encoder(asked.get("accept", ""))
        headers, body = {"Content-Type": content_type}, encode(self._telemetry.registry)
        if "gzip" in asked.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, compresslevel=1)
        return headers, body


def _parse(head: bytes) -> _Request:
    """Read the head of a request; raises ValueError when it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    words = first.split(" ")
    if len(words) != _WORDS_OF_A_REQUEST or not words[2].startswith("HTTP/1."):
        raise ValueError("not a request of HTTP 1")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("not a header")
        headers[name.strip().lower()] = value.strip()
    return _Request(words[0], words[1].partition("?")[0], headers)


def _response(
    status: HTTPStatus, headers: dict[str, str] | None = None, body: bytes = b"", *, send_body: bool = True
) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body if send_body else b"")
