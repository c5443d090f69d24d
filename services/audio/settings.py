"""Settings of the audio service, each overridable as ``BONAFIDE_AUDIO_NAME``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.audio.pipeline import WindowPlan
from services.common.model_service import ModelServiceSettings


class AudioSettings(ModelServiceSettings):
    """What the audio service needs to know."""

    model_config = SettingsConfigDict(
        env_prefix="BONAFIDE_AUDIO_", extra="forbid", frozen=True, protected_namespaces=()
    )

    window_seconds: float = Field(4.0, ge=1.0, le=6.0, description="Length of a scored window, seconds.")
    least_speech_seconds: float = Field(
        0.5, ge=0.1, le=6.0, description="Speech that a window must hold to be scored, seconds."
    )
    most_windows: int = Field(
        24, ge=1, description="Windows scored in one clip; more are thinned out evenly over the clip."
    )
    calls_at_once: int = Field(8, ge=1, description="Calls under way at one time; more are refused with advice.")
    call_bytes_at_once: int = Field(512 << 20, ge=1, description="Bytes that their messages may hold together.")
    call_seconds: float = Field(30.0, gt=0, description="Longest time for one call without a deadline, seconds.")

    def window_plan(self) -> WindowPlan:
        """How sounds are cut for scoring."""
        return WindowPlan(self.window_seconds, self.least_speech_seconds, self.most_windows)
