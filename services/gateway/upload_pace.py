"""A least pace for uploads, so that a caller who trickles bytes does not hold a place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.common.errors import DeadlineError


@dataclass(frozen=True, slots=True)
class UploadPace:
    """How fast an upload must be.

    Over every ``window_seconds`` spent waiting for the caller it must bring ``bytes_per_second`` on average,
    and no single message may take longer than ``idle_seconds``. Time that we need for ourselves is not the
    caller's and does not count.
    """

    bytes_per_second: float
    window_seconds: float
    idle_seconds: float


async def keep_pace(chunks: AsyncIterator[bytes], pace: UploadPace) -> AsyncIterator[bytes]:
    """The same chunks, as long as they come fast enough.

    Raises:
        DeadlineError: they do not (reason UPLOAD_TOO_SLOW).
    """
    source = aiter(chunks)
    waited, received = 0.0, 0
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(pace.idle_seconds):
                chunk = await anext(source)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise _too_slow() from error
        waited += time.monotonic() - began
        received += len(chunk)
        if waited >= pace.window_seconds:
            if received < pace.bytes_per_second * waited:
                raise _too_slow()
            waited, received = 0.0, 0
        yield chunk


def _too_slow() -> DeadlineError:
    return DeadlineError("the upload is slower than is allowed", reason="UPLOAD_TOO_SLOW")
