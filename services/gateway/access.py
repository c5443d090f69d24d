"""Settings of the gateway's two sides: who may call it, and as whom it calls the other services."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from services.common.certificates import CertificateFiles, CertificateStore
from services.common.connections import is_loopback
from services.common.settings import ServiceSettings
from services.gateway.api_keys import KeyRing
from services.gateway.authentication import CallerAuthentication
from services.gateway.quotas import Quota, QuotaBook
from services.gateway.signing_keys import SigningKeys, reader
from services.gateway.tokens import TokenRules, TokenVerifier


class AccessSettings(ServiceSettings):
    """Identity at the gateway."""

    visual_address: str = Field("127.0.0.1:8501", description="HOST:PORT of the visual service.")
    audio_address: str = Field("127.0.0.1:8502", description="HOST:PORT of the audio service.")
    fusion_address: str = Field("127.0.0.1:8503", description="HOST:PORT of the fusion service.")
    visual_server_name: str = Field(
        "", description="Name that the visual service's certificate must carry; the address's host when empty."
    )
    audio_server_name: str = Field("", description="The same for the audio service.")
    fusion_server_name: str = Field("", description="The same for the fusion service.")
    peer_authorities: Path | None = Field(
        None, description="PEM file of the authorities of the other services; TLS to them when given."
    )
    peer_certificate: Path | None = Field(
        None, description="PEM file of the certificate that the gateway shows them; its SPIFFE id is on their lists."
    )
    peer_key: Path | None = Field(None, description="PEM file of the private key of peer_certificate.")
    connection_age_seconds: float = Field(
        300.0,
        gt=0,
        description="Age at which a connection is replaced, so that callers find new replicas; calls on it go on.",
    )

    allow_anonymous: bool = Field(
        default=False, description="Whether callers from other machines may call without showing who they are."
    )
    api_keys: Path | None = Field(
        None, description="File of hashed API keys (`bonafide keys new`), one a line; read again when it changes."
    )
    token_keys: str = Field(
        "", description="Path or https URL of the JWKS that signs callers' tokens (RS256, ES256); empty: no tokens."
    )
    token_issuer: str = Field("", description="Issuer (iss) that a token must have.")
    token_audience: str = Field("", description="Audience (aud) that a token must have.")
    token_scope: str = Field("", description="Scope that a token must have; empty: none.")
    token_leeway_seconds: float = Field(30.0, ge=0, le=300, description="How far clocks may be apart, seconds.")
    token_refresh_seconds: float = Field(
        300.0, gt=0, description="Time after which token_keys are read again, seconds."
    )
    token_stale_seconds: float = Field(
        86_400.0, gt=0, description="How long keys stay in force that cannot be read again, seconds."
    )
    caller_requests_per_minute: int = Field(
        0, ge=0, description="Calls a minute of a caller whose credential brings no quota of its own; 0: no limit."
    )
    caller_concurrent: int = Field(0, ge=0, description="The same for calls at the same time; 0: no limit.")

    @model_validator(mode="after")
    def _callers_are_known(self) -> Self:
        if self.token_keys:
            reader(self.token_keys)
            if not (self.token_issuer and self.token_audience):
                raise ValueError(
                    "token_keys needs token_issuer and token_audience, or any token of the issuer would do"
                )
        known = self.api_keys or self.token_keys or self.tls_authorities
        if not (known or self.allow_anonymous or is_loopback(self.listen)):
            raise ValueError(
                f"listen {self.listen} is not loopback and anyone there could call:"
                " give api_keys, token_keys or tls_authorities, or set allow_anonymous to true"
            )
        return self

    @model_validator(mode="after")
    def _peers_are_safe(self) -> Self:
        files = (self.peer_authorities, self.peer_certificate, self.peer_key)
        if any(files) and not all(files):
            raise ValueError("peer_authorities, peer_certificate and peer_key go together, and one is missing")
        if self.peer_authorities is None:
            for name in ("visual_address", "audio_address", "fusion_address"):
                self.refuse_plaintext(name, getattr(self, name))
        return self

    def peer_certificates(self) -> CertificateStore | None:
        """What the gateway shows and trusts when it calls; None for plain text.

        Raises:
            CertificateError: the files cannot be used.
        """
        files = CertificateFiles(self.peer_certificate, self.peer_key, self.peer_authorities)
        return CertificateStore(files) if files else None

    def authentication(self) -> CallerAuthentication:
        """Who is let in.

        Raises:
            KeyFileError: the file of API keys cannot be used.
        """
        tokens = None
        if self.token_keys:
            keys = SigningKeys(
                reader(self.token_keys),
                refresh_seconds=self.token_refresh_seconds,
                stale_seconds=self.token_stale_seconds,
            )
            rules = TokenRules(self.token_issuer, self.token_audience, self.token_scope, self.token_leeway_seconds)
            tokens = TokenVerifier(rules, keys)
        return CallerAuthentication(
            KeyRing(self.api_keys) if self.api_keys else None,
            tokens,
            QuotaBook(),
            Quota(self.caller_requests_per_minute, self.caller_concurrent),
        )
