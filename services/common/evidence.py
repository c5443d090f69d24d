"""What the branches say, in the project's own words: the ledger and the evidence behind it.

Times are integer microseconds from the start of the clip's presentation timeline. Probabilities lie in
[0, 1] and always mean P(deepfake).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class Branch(StrEnum):
    """One independent witness whose score the fused verdict weighs."""

    PATCH = "patch"
    FRAME = "frame"
    TEMPORAL = "temporal"
    AUDIO = "audio"
    SYNC = "sync"


VISUAL_BRANCHES = (Branch.PATCH, Branch.FRAME, Branch.TEMPORAL)


class Outcome(StrEnum):
    """How a branch ended. Only SCORED carries a score; nothing is ever imputed."""

    SCORED = "scored"
    NOT_APPLICABLE = "not_applicable"
    NOT_REQUESTED = "not_requested"
    NOT_DEPLOYED = "not_deployed"
    TIMED_OUT = "timed_out"
    FAILED = "failed"


class ReasonCode(StrEnum):
    """Machine-readable ground for an outcome or a verdict; each is explained in the contract."""

    NO_VIDEO = "NO_VIDEO"
    NO_AUDIO = "NO_AUDIO"
    NO_FACE = "NO_FACE"
    FACE_TOO_SMALL = "FACE_TOO_SMALL"
    NO_SPEECH = "NO_SPEECH"
    CLIP_TOO_SHORT = "CLIP_TOO_SHORT"
    BRANCH_TIMED_OUT = "BRANCH_TIMED_OUT"
    BRANCH_UNAVAILABLE = "BRANCH_UNAVAILABLE"
    BRANCH_ERROR = "BRANCH_ERROR"
    MODEL_NOT_DEPLOYED = "MODEL_NOT_DEPLOYED"
    BRANCH_NOT_REQUESTED = "BRANCH_NOT_REQUESTED"
    TOO_LITTLE_EVIDENCE = "TOO_LITTLE_EVIDENCE"
    WITHIN_ABSTAIN_BAND = "WITHIN_ABSTAIN_BAND"
    TRACKS_SKIPPED = "TRACKS_SKIPPED"
    PARTIAL_MEDIA = "PARTIAL_MEDIA"
    ABOVE_DEEPFAKE_THRESHOLD = "ABOVE_DEEPFAKE_THRESHOLD"
    BELOW_AUTHENTIC_THRESHOLD = "BELOW_AUTHENTIC_THRESHOLD"
    EARLY_EXIT = "EARLY_EXIT"
    STILL_FACE = "STILL_FACE"
    OUT_OF_SYNC = "OUT_OF_SYNC"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"


class Verdict(StrEnum):
    """The answer. Too little evidence is never AUTHENTIC."""

    AUTHENTIC = "AUTHENTIC"
    DEEPFAKE = "DEEPFAKE"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class ScorePoint:
    """P(deepfake) of one stretch of the clip; ``track_id`` 0 means the whole clip."""

    time_us: int
    duration_us: int
    track_id: int
    probability: float


@dataclass(frozen=True, slots=True)
class BranchReport:
    """One line of the ledger.

    ``score`` is None unless the outcome is SCORED; ``features`` are the named clip-level numbers that
    fusion reads (``visual_prob_mean`` and the like); ``model`` is ``name/version``;
    ``budget_milliseconds`` is the time the gateway allowed, 0 when it did not ask.
    """

    branch: Branch
    outcome: Outcome
    reason: ReasonCode | None = None
    score: float | None = None
    milliseconds: float = 0.0
    model: str = ""
    features: Mapping[str, float] = field(default_factory=dict)
    timeline: tuple[ScorePoint, ...] = ()
    budget_milliseconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model that took part; ``engine`` is ``triton`` or ``embedded``, or ``head`` for fusion's own.

    ``candidate`` says that it was on trial: other clips get another version.
    """

    name: str
    version: str
    sha256: str
    engine: str
    candidate: bool = False


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a face did; None where it could not be measured. Units are those of the contract."""

    blinks: int | None = None
    blinks_per_minute: float | None = None
    eye_aspect_mean: float | None = None
    eye_aspect_deviation: float | None = None
    landmark_jitter: float | None = None
    observed_seconds: float = 0.0
    eye_aspect: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One face followed through the clip; ``box`` is left, top, right, bottom as fractions of the picture."""

    track_id: int
    start_us: int
    end_us: int
    box: tuple[float, float, float, float]
    face_size: float
    detections: int
    behaviour: Behaviour


@dataclass(frozen=True, slots=True)
class MotionSequence:
    """Lip motion of one track: ``values`` is float32 [rows, width], one row for each of ``time_us``."""

    track_id: int
    time_us: tuple[int, ...]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VoiceSequence:
    """Log-mel rows at a steady rate: ``values`` is float32 [rows, bands]."""

    start_us: int
    step_us: int
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SpeechWindow:
    """One stretch of sound and the share of it that is speech, [0, 1]."""

    start_us: int
    end_us: int
    speech_fraction: float


@dataclass(frozen=True, slots=True)
class VisualEvidence:
    """All that the pictures of one clip say."""

    reports: tuple[BranchReport, ...]
    tracks: tuple[FaceTrack, ...] = ()
    tracks_skipped: int = 0
    motions: tuple[MotionSequence, ...] = ()
    models: tuple[ModelInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class AudioEvidence:
    """All that the sound of one clip says."""

    reports: tuple[BranchReport, ...]
    windows: tuple[SpeechWindow, ...] = ()
    speech_fraction: float = 0.0
    voice: VoiceSequence | None = None
    models: tuple[ModelInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one feature added to the verdict's natural log-odds."""

    feature: str
    value: float
    log_odds: float


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """The decision rule in force; the bound is the upper 95 % one on false positives."""

    name: str
    deepfake_threshold: float
    authentic_threshold: float
    false_positive_bound: float


@dataclass(frozen=True, slots=True)
class FusionResult:
    """The verdict with its grounds; ``sync`` is the SYNC line of the ledger."""

    verdict: Verdict
    probability: float | None
    reasons: tuple[ReasonCode, ...]
    contributions: tuple[Contribution, ...]
    sync: BranchReport
    policy: PolicyInfo
    models: tuple[ModelInfo, ...] = ()
