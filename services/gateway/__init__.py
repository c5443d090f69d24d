"""The gateway: ingest, decode, fan-out, the public API."""
