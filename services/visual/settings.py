"""Settings of the visual service; each is overridable as ``BONAFIDE_VISUAL_NAME``."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.model_service import ModelServiceSettings


class VisualSettings(ModelServiceSettings):
    """How much of a clip is looked at, and how many calls may be under way."""

    model_config = SettingsConfigDict(env_prefix="BONAFIDE_VISUAL_", extra="forbid", frozen=True)

    max_tracks: int = Field(8, ge=1, description="Faces that are analysed; the rest are counted as skipped.")
    detect_every: int = Field(3, ge=1, description="Dense frames from one detection to the next.")
    max_crops_per_track: int = Field(16, ge=1, description="Crops of one face that are scored.")
    max_crops: int = Field(48, ge=1, description="Crops of one clip that are scored, shared by its faces.")
    max_meshes: int = Field(
        1000, ge=0, description="Meshes of one clip; faces are followed whole, most present first, until used up."
    )
    dense_detection_side: int = Field(
        320, ge=64, le=640, multiple_of=32, description="Longer side at which dense frames are searched, pixels."
    )
    detection_batch: int = Field(4, ge=1, le=8, description="Pictures a detector call; 4 stay in the cache.")
    landmark_batch: int = Field(8, ge=1, le=8, description="Faces a landmarker call.")
    score_batch: int = Field(8, ge=1, le=8, description="Crops a call of the patch gate or the frame classifier.")
    calls_in_flight: int = Field(2, ge=1, description="Inference calls of one request under way at once.")
    calls_at_once: int = Field(4, ge=1, description="Calls under way at one time; more are refused with advice.")
    call_bytes_at_once: int = Field(2 << 30, ge=1, description="Bytes that their messages may hold together.")
    call_seconds: float = Field(60.0, gt=0, description="Longest time for one call, seconds.")
