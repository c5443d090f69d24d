"""What services that run networks have on top of every service: settings of their engine, and readiness."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from services.common.certificates import CertificateFiles, CertificateStore
from services.common.inference import EmbeddedEngine, InferenceEngine, TritonEngine, TritonLimits, VersionedEngine
from services.common.model_metrics import ModelMetrics
from services.common.models import ModelRepository
from services.common.refusal import ConfigurationError
from services.common.server import Check
from services.common.settings import EngineChoice, ServiceSettings
from services.common.triton_care import ServedModel


class ModelServiceSettings(ServiceSettings):
    """What services that run networks need on top."""

    engine: EngineChoice = Field(EngineChoice.AUTO, description="Where networks run: auto, triton, embedded.")
    triton_address: str = Field("", description="HOST:PORT of Triton's gRPC endpoint; empty means none.")
    triton_authorities: Path | None = Field(
        None, description="PEM file of the authorities of Triton's certificate; TLS to Triton when given."
    )
    triton_certificate: Path | None = Field(
        None, description="PEM file of the certificate shown to Triton, when it asks for one."
    )
    triton_key: Path | None = Field(None, description="PEM file of the private key of triton_certificate.")
    model_repository: Path = Field(
        Path("model_repository"), description="Directory of the models, their cards and their hashes."
    )
    triton_calls_per_model: int = Field(16, ge=1, description="Calls to one model of Triton under way at once.")
    triton_patience_seconds: float = Field(
        5.0, ge=0, description="How long a call keeps trying while Triton restarts or reloads a model, seconds."
    )
    triton_probe_seconds: float = Field(
        5.0, gt=0, description="Time in which a model must answer the tiny inference of a readiness check, seconds."
    )
    triton_heal: bool = Field(
        default=True, description="Unload and load a model that no longer answers, where Triton allows it."
    )
    triton_shared_regions: int = Field(
        4,
        ge=0,
        description="Regions of 8 MiB of shared memory for large tensors, used where Triton is on this node; 0: none.",
    )
    engine_threads: int = Field(1, ge=1, description="Threads of each embedded session.")

    @model_validator(mode="after")
    def _hops_are_safe(self) -> Self:
        if self.tls_certificate is not None and not self.allowed_peers:
            raise ValueError(
                "a service behind the gateway that has certificates needs tls_authorities and allowed_peers"
            )
        if (self.triton_certificate is None) != (self.triton_key is None):
            raise ValueError("triton_certificate and triton_key go together, and one is missing")
        if self.triton_authorities is None:
            self.refuse_plaintext("triton_address", self.triton_address)
        return self

    def repository(self) -> ModelRepository:
        """The model repository under ``model_repository``."""
        return ModelRepository(self.model_repository)

    def open_engine(self, metrics: ModelMetrics | None = None) -> VersionedEngine:
        """The engine that these settings choose; its calls are measured where ``metrics`` are scraped.

        Raises:
            ConfigurationError: Triton is asked for without an address.
            CertificateError: the certificates for Triton cannot be used.
        """
        if self.engine is EngineChoice.TRITON and not self.triton_address:
            raise ConfigurationError("engine is triton but triton_address is empty")
        if self.engine is EngineChoice.EMBEDDED or not self.triton_address:
            return EmbeddedEngine(self.repository(), threads=self.engine_threads, metrics=metrics)
        files = CertificateFiles(self.triton_certificate, self.triton_key, self.triton_authorities)
        limits = TritonLimits(
            calls_per_model=self.triton_calls_per_model,
            patience_seconds=self.triton_patience_seconds,
            probe_seconds=self.triton_probe_seconds,
            heal=self.triton_heal,
            shared_regions=self.triton_shared_regions,
        )
        certificates = CertificateStore(files) if files else None
        return TritonEngine(self.triton_address, certificates=certificates, limits=limits, metrics=metrics)


def models_ready(
    repository: ModelRepository,
    engine: InferenceEngine,
    metrics: ModelMetrics,
    *,
    required: Sequence[str],
    optional: Sequence[str] = (),
) -> Check:
    """A readiness check: every model is trained and unaltered, and answers a tiny inference; ``metrics`` say which."""

    async def check() -> None:
        cards = await asyncio.to_thread(repository.verify_all, required, optional)
        if isinstance(engine, TritonEngine):
            await engine.check([ServedModel(name, card.version) for name, card in cards.items()])
        metrics.at_work(cards.values())

    return check
