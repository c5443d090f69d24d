"""Where the bytes of a clip come from when they are not in the call: an upload that is kept, or a URI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from services.common.callers import current_caller
from services.gateway.fetching import Fetcher
from services.gateway.uploads import UploadStore

READ_BYTES = 1 << 20


class Sources:
    """Opens clips by name, for the caller of the current call."""

    def __init__(self, uploads: UploadStore, fetcher: Fetcher) -> None:
        self._uploads = uploads
        self._fetcher = fetcher

    async def chunks(self, *, upload_id: str = "", uri: str = "") -> AsyncGenerator[bytes, None]:
        """The bytes of an upload, or else of a URI.

        Raises:
            BonafideError: see ``UploadStore.open`` and ``Fetcher.fetch``.
        """
        if not upload_id:
            async with aclosing(self._fetcher.fetch(uri)) as fetched:
                async for chunk in fetched:
                    yield chunk
            return
        with await asyncio.to_thread(self._uploads.open, current_caller().name, upload_id) as file:
            while chunk := await asyncio.to_thread(file.read, READ_BYTES):
                yield chunk
