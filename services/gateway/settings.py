"""Settings of the gateway, each overridable as ``BONAFIDE_GATEWAY_NAME``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.gateway.access import AccessSettings
from services.gateway.admission import AdmissionRules
from services.gateway.admission_settings import AdmissionSettings
from services.gateway.intake_settings import IntakeSettings
from services.gateway.limits import DecodeLimits
from services.gateway.pipeline import Allowances
from services.gateway.reception import COPIES_OF_A_CLIP, UploadLimits
from services.gateway.sampling import SamplingPlan


class GatewaySettings(AccessSettings, IntakeSettings, AdmissionSettings):
    """What the gateway needs to know."""

    model_config = SettingsConfigDict(
        env_prefix="BONAFIDE_GATEWAY_", extra="forbid", frozen=True, protected_namespaces=()
    )

    model_repository: Path = Field(Path("model_repository"), description="Directory of the model cards to list.")
    spool_memory_bytes: int = Field(
        32 << 20, ge=0, description="Bytes of one upload that are kept in memory; more goes to a temporary file."
    )
    max_duration_seconds: float = Field(600.0, gt=0, description="Longest clip, seconds.")
    max_pixels: int = Field(8192 * 6144, ge=1, description="Most pixels of one picture.")
    max_frames: int = Field(150_000, ge=1, description="Most pictures of one clip.")
    decode_seconds: float = Field(60.0, gt=0, description="Longest wall time of one decode, seconds.")
    decode_threads: int = Field(2, ge=1, description="Threads of the video decoder.")
    decode_workers: int = Field(4, ge=1, description="Clips that are decoded at the same time; others wait.")
    call_seconds: float = Field(
        600.0, gt=0, description="Longest time for one call, and the time of a call without a deadline, seconds."
    )
    branch_seconds: float = Field(60.0, gt=0, description="Longest wait for the branches of one clip, seconds.")
    fusion_seconds: float = Field(
        2.0, gt=0, description="Kept of the caller's time to form the verdict when branches are slow, seconds."
    )

    def limits(self) -> DecodeLimits:
        """What one decode may cost."""
        return DecodeLimits(
            max_pixels=self.max_pixels,
            max_duration_us=round(self.max_duration_seconds * 1_000_000),
            max_frames=self.max_frames,
            max_seconds=self.decode_seconds,
            threads=self.decode_threads,
        )

    def allowances(self) -> Allowances:
        """What one clip may use."""
        return Allowances(branch_seconds=self.branch_seconds, fusion_seconds=self.fusion_seconds)

    def upload_limits(self) -> UploadLimits:
        """What one upload may use."""
        return UploadLimits(self.max_file_bytes, self.spool_memory_bytes, self.upload_pace(), self.spool())

    def admission_rules(self, plan: SamplingPlan) -> AdmissionRules:
        """How much may be under way, when clips are sampled like this."""
        largest = COPIES_OF_A_CLIP * plan.most_bytes(self.max_duration_seconds)
        return self.rules(largest, self.spool_memory_bytes)
