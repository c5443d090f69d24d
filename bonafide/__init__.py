"""What a user imports: the contract's stubs, the client, the command line.

``Client``, ``AsyncClient`` and what they need are found here by name; they are imported only when asked
for, because the services import the stubs beside them and need no client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bonafide.aio import AsyncClient
    from bonafide.analysis import Analysis, Event, Progress, ServedModel
    from bonafide.calls import RetryPolicy
    from bonafide.client import Client
    from bonafide.connection import Credentials
    from bonafide.errors import ClientError
    from bonafide.messages import BatchResult, Priority
    from bonafide.uploads import Uploaded, Uri

__version__ = "0.1.0"

_HOMES = {
    "Analysis": "analysis",
    "AsyncClient": "aio",
    "BatchResult": "messages",
    "Client": "client",
    "ClientError": "errors",
    "Credentials": "connection",
    "Event": "analysis",
    "Priority": "messages",
    "Progress": "analysis",
    "RetryPolicy": "calls",
    "ServedModel": "analysis",
    "Uploaded": "uploads",
    "Uri": "uploads",
}

__all__ = [
    "Analysis",
    "AsyncClient",
    "BatchResult",
    "Client",
    "ClientError",
    "Credentials",
    "Event",
    "Priority",
    "Progress",
    "RetryPolicy",
    "ServedModel",
    "Uploaded",
    "Uri",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
