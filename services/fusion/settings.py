"""Settings of the fusion service, each overridable as ``BONAFIDE_FUSION_NAME``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.model_service import ModelServiceSettings
from services.fusion.store import DEFAULT_POLICY, SHIPPED_HEADS


class FusionSettings(ModelServiceSettings):
    """What the fusion service needs to know."""

    model_config = SettingsConfigDict(
        env_prefix="BONAFIDE_FUSION_", extra="forbid", frozen=True, protected_namespaces=()
    )

    heads: Path = Field(SHIPPED_HEADS, description="Directory of the fusion heads, their policies and manifest.")
    policies: Path | None = Field(None, description="Directory of the operator's own policies; JSON files.")
    default_policy: str = Field(DEFAULT_POLICY, description="Policy used when a caller names none.")
    calls_at_once: int = Field(64, ge=1, description="Calls under way at one time; more are refused with advice.")
    call_bytes_at_once: int = Field(256 << 20, ge=1, description="Bytes that their messages may hold together.")
    call_seconds: float = Field(10.0, gt=0, description="Longest time for one call without a deadline, seconds.")
