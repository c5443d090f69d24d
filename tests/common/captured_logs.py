"""The log of a test as a service would write it; logging is left as it was found."""

import io
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from services.common.logs import OURS, set_up_logs
from services.common.settings import LogFormat


@contextmanager
def captured_log(form: LogFormat = LogFormat.JSON, level: str = "INFO") -> Iterator[io.StringIO]:
    """What is logged within the block."""
    root, hooks, stream = logging.getLogger(), (sys.excepthook, threading.excepthook), io.StringIO()
    handlers, root_level = root.handlers[:], root.level
    root.handlers.clear()  # pytest's are kept from being closed
    set_up_logs("visual", level, form, stream)
    try:
        yield stream
    finally:
        root.handlers[:], sys.excepthook, threading.excepthook = handlers, *hooks
        root.setLevel(root_level)
        for name in OURS:
            logging.getLogger(name).setLevel(logging.NOTSET)
