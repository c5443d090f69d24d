"""One factory for channels between our services."""

from __future__ import annotations

import json

import grpc

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def open_channel(address: str, *, max_message_bytes: int) -> grpc.aio.Channel:
    """A channel to a service of ours: round robin, retries on UNAVAILABLE (gRFC A6), large messages.

    Deadlines are given on every call, never here: a service-config timeout fires early in Python and is
    not sent to the server.
    """
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
            ("grpc.enable_http_proxy", 0),
        ],
    )
