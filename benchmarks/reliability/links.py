"""TCP links that can be cut: a proxy whose connections are reset on demand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

Address = Callable[[], str]
_BLOCK = 1 << 18


class Link:
    """One port of the loopback that leads to another, on a thread of its own; a context manager.

    Args:
        upstream: answers HOST:PORT of where to; asked for every connection.
    """

    def __init__(self, upstream: Address) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def reset(self) -> int:
        """Reset every connection now (RST, not FIN); answers how many there were."""
        return self._do(self._reset())

    def _do(self, work: Coroutine[Any, Any, int]) -> int:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_BLOCK)
        port = int(self._server.sockets[0].getsockname()[1])
        self.address = f"127.0.0.1:{port}"
        return port

    async def _close(self) -> int:
        assert self._server is not None
        self._server.close()
        await self._reset()
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=5)  # each ends once its connections have
        return 0

    async def _reset(self) -> int:
        writers = list(self._open)
        for writer in writers:
            endpoint: socket.socket = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it may be closed already
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return len(writers) // 2

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            host, _, port = self._upstream().rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port), limit=_BLOCK)
        except (OSError, KeyError):  # nobody listens there, or nobody knows yet where it is
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._open |= pair
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._open -= pair
            for each in pair:
                each.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
    with contextlib.suppress(ConnectionError, OSError, RuntimeError):
        writer.write_eof()
