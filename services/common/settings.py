"""Settings that every service has. Each is overridable by environment: prefix, underscore, NAME."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.common.inference import EmbeddedEngine, InferenceEngine, TritonEngine
from services.common.models import ModelRepository


class EngineChoice(StrEnum):
    """Where networks run; ``auto`` means Triton when its address is given, else embedded."""

    AUTO = "auto"
    TRITON = "triton"
    EMBEDDED = "embedded"


class ServiceSettings(BaseSettings):
    """What every service needs to listen, stop and log."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:0", description="Address to listen on, HOST:PORT; port 0 picks a free one.")
    max_message_bytes: int = Field(512 * 1024 * 1024, ge=1 << 20, description="Largest gRPC message, bytes.")
    drain_seconds: float = Field(5.0, ge=0, description="Longest wait for calls in flight on SIGTERM, seconds.")
    readiness_interval_seconds: float = Field(
        5.0, gt=0, description="Pause between readiness checks (model hashes, inference server), seconds."
    )
    log_level: str = Field("INFO", description="Lowest level that is logged.")


class ModelServiceSettings(ServiceSettings):
    """What services that run networks need on top."""

    engine: EngineChoice = Field(EngineChoice.AUTO, description="Where networks run: auto, triton, embedded.")
    triton_address: str = Field("", description="HOST:PORT of Triton's gRPC endpoint; empty means none.")
    model_repository: Path = Field(
        Path("model_repository"), description="Directory of the models, their cards and their hashes."
    )
    engine_threads: int = Field(1, ge=1, description="Threads of each embedded session.")

    def repository(self) -> ModelRepository:
        """The model repository under ``model_repository``."""
        return ModelRepository(self.model_repository)

    def open_engine(self) -> InferenceEngine:
        """The engine that these settings choose.

        Raises:
            ValueError: Triton is asked for without an address.
        """
        if self.engine is EngineChoice.TRITON and not self.triton_address:
            raise ValueError("engine is triton but triton_address is empty")
        if self.engine is EngineChoice.EMBEDDED or not self.triton_address:
            return EmbeddedEngine(self.repository(), threads=self.engine_threads)
        return TritonEngine(self.triton_address)
