"""Settings of the gateway's two sides: who may call it, and as whom it calls the other services."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from services.common.certificates import CertificateFiles, CertificateStore
from services.common.settings import ServiceSettings


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
