"""What expires goes, whether or not anybody calls: kept uploads are looked through again and again."""

from __future__ import annotations

import asyncio
import logging

from services.common.errors import UnavailableError
from services.gateway.uploads import UploadStore

_log = logging.getLogger(__name__)


async def keep_swept(uploads: UploadStore, pause_seconds: float) -> None:
    """Delete what has expired every ``pause_seconds``, until cancelled; a disk that fails is tried again."""
    while True:
        await asyncio.sleep(pause_seconds)
        try:
            await asyncio.to_thread(uploads.sweep)
        except UnavailableError:
            _log.debug("another gateway goes through the uploads")
        except OSError as error:
            _log.warning("expired uploads could not be deleted: %s", error.strerror)
