"""Settings that every service has. Each is overridable by environment: prefix, underscore, NAME."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from services.common.certificates import CertificateFiles, CertificateStore
from services.common.connections import ConnectionLimits, is_loopback
from services.common.refusal import ConfigurationError

_SPIFFE = "spiffe://"
_ADDRESS = re.compile(r"[^/@\s]+:[0-9]{1,5}")
_PROBE_CONNECTIONS = 64
_PROBE_MESSAGE_BYTES = 4096


class EngineChoice(StrEnum):
    """Where networks run; ``auto`` means Triton when its address is given, else embedded."""

    AUTO = "auto"
    TRITON = "triton"
    EMBEDDED = "embedded"


class LogFormat(StrEnum):
    """How a line of the log is written: for machines, or for people."""

    JSON = "json"
    TEXT = "text"


class ServiceSettings(BaseSettings):
    """What every service needs to listen, to know who calls, to stop and to log."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:0", description="Address to listen on, HOST:PORT; port 0 picks a free one.")
    health_listen: str = Field(
        "", description="HOST:PORT in plain text for probes: carries grpc.health.v1 and nothing else; empty means none."
    )
    metrics_listen: str = Field(
        "", description="HOST:PORT in plain HTTP for Prometheus: carries /metrics and nothing else; empty means none."
    )
    allow_plaintext: bool = Field(
        default=False, description="Whether plain text may leave the machine, for both calls received and calls made."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of this service's certificate chain; read again when it changes."
    )
    tls_key: Path | None = Field(None, description="PEM file of its private key; read again when it changes.")
    tls_authorities: Path | None = Field(
        None,
        description="PEM file of the authorities whose certificates callers must show; read again when it changes.",
    )
    allowed_peers: tuple[str, ...] = Field(
        (), description="SPIFFE ids that may call, a JSON array; others are refused whatever authority signed them."
    )
    reflection: bool = Field(
        default=True, description="Whether callers who are let in may read the contract by reflection."
    )
    max_message_bytes: int = Field(512 * 1024 * 1024, ge=1 << 20, description="Largest gRPC message, bytes.")
    max_connections: int = Field(1000, ge=1, description="Connections open at the same time; more are refused.")
    max_streams: int = Field(128, ge=1, description="Calls at the same time on one connection; more wait.")
    connection_age_seconds: float = Field(
        3.0,
        gt=0,
        description="Age at which a connection is replaced, so that callers find new replicas; calls on it go on.",
    )
    connection_grace_seconds: float = Field(
        900.0, gt=0, description="Longest time that calls on a replaced connection go on, seconds."
    )
    drain_notice_seconds: float = Field(
        3.0, ge=0, description="Time between NOT_SERVING and refusing calls on SIGTERM, for callers to notice, seconds."
    )
    drain_seconds: float = Field(5.0, ge=0, description="Longest wait for calls in flight on SIGTERM, seconds.")
    readiness_interval_seconds: float = Field(
        5.0, gt=0, description="Pause between readiness checks (model hashes, inference server), seconds."
    )
    rollout_file: Path | None = Field(
        None,
        description="JSON file of model versions on trial, read again when it changes; none: cards alone decide.",
    )
    log_level: str = Field("INFO", description="Lowest level that is logged.")
    log_format: LogFormat = Field(
        LogFormat.JSON, description="How the log is written: json (an object a line) or text."
    )
    otlp_endpoint: str = Field(
        "", description="http:// or https:// URL of the OTLP/gRPC receiver that spans are sent to; empty: no traces."
    )
    otlp_authorities: Path | None = Field(
        None, description="PEM file of the authorities of that receiver's certificate; the system's when not given."
    )
    trace_sample_ratio: float = Field(
        0.1, ge=0, le=1, description="Share of ordinary traces that are sent; the same in all services."
    )
    trace_slow_seconds: float = Field(
        10.0, gt=0, description="Spans that take longer make their trace one that is always sent, like errors; seconds."
    )

    @model_validator(mode="after")
    def _traces_are_safe(self) -> Self:
        scheme, _, address = self.otlp_endpoint.partition("://")
        if self.otlp_endpoint and not (scheme in {"http", "https"} and _ADDRESS.fullmatch(address)):
            raise ValueError(f"otlp_endpoint {self.otlp_endpoint} is not http://HOST:PORT or https://HOST:PORT")
        if scheme == "http":
            self.refuse_plaintext("otlp_endpoint", address)
        return self

    @model_validator(mode="after")
    def _door_is_safe(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together, and one is missing")
        if self.tls_authorities is not None and self.tls_certificate is None:
            raise ValueError("tls_authorities needs tls_certificate and tls_key")
        if self.allowed_peers and self.tls_authorities is None:
            raise ValueError("allowed_peers needs tls_authorities, for without certificates nobody has an id")
        if strange := [peer for peer in self.allowed_peers if not peer.startswith(_SPIFFE)]:
            raise ValueError(f"allowed_peers holds {strange[0]!r}, which does not begin with {_SPIFFE}")
        if self.tls_certificate is None:
            self.refuse_plaintext("listen", self.listen)
        return self

    def refuse_plaintext(self, name: str, address: str) -> None:
        """Raise ValueError when plain text to or at an address would leave the machine without permission."""
        if address and not self.allow_plaintext and not is_loopback(address):
            raise ValueError(
                f"{name} {address} is not loopback and would carry plain text:"
                " give certificates, or set allow_plaintext to true"
            )

    def door(self) -> CertificateStore | None:
        """The certificates of this service's port; None for plain text.

        Raises:
            CertificateError: they cannot be used.
        """
        files = CertificateFiles(self.tls_certificate, self.tls_key, self.tls_authorities)
        return CertificateStore(files) if files else None

    def connection_limits(self) -> ConnectionLimits:
        """What this service's port grants."""
        return ConnectionLimits(
            message_bytes=self.max_message_bytes,
            connections=self.max_connections,
            streams=self.max_streams,
            age_seconds=self.connection_age_seconds,
            grace_seconds=self.connection_grace_seconds,
        )

    def probe_limits(self) -> ConnectionLimits:
        """What the port for probes grants."""
        return ConnectionLimits(
            message_bytes=_PROBE_MESSAGE_BYTES,
            connections=_PROBE_CONNECTIONS,
            streams=8,
            age_seconds=60,
            grace_seconds=60,
        )


Settings = TypeVar("Settings", bound=ServiceSettings)


def load_settings(kind: type[Settings]) -> Settings:
    """Read settings from the environment.

    Raises:
        ConfigurationError: they contradict each other, or one of them is not what it must be; one sentence.
    """
    try:
        return kind()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigurationError(_sentence(kind, first["loc"], first["msg"])) from error
    except SettingsError as error:  # a list that is not JSON
        raise ConfigurationError(f"{kind.__name__}: {error}; is it JSON?") from error


def _sentence(kind: type[BaseSettings], place: tuple[Any, ...], text: str) -> str:
    prefix = str(kind.model_config.get("env_prefix", ""))
    name = f"{prefix}{'_'.join(map(str, place)).upper()}" if place else prefix.rstrip("_")
    return f"{name}: {text.removeprefix('Value error, ')}"
