"""What the gateway is asked and what it answers, in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from services.common.evidence import (
    AudioEvidence,
    Branch,
    BranchReport,
    FusionResult,
    ModelInfo,
    MotionSequence,
    ReasonCode,
    VisualEvidence,
    VoiceSequence,
)
from services.common.media import AudioTrack, Frame, MediaInfo


class Stage(StrEnum):
    """A step of the pipeline."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    DECODING = "decoding"
    ANALYZING = "analyzing"
    FUSING = "fusing"
    DONE = "done"


class Priority(StrEnum):
    """How urgent a request is: someone waits for it, it is part of a batch, or it fills idle time."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller wants.

    ``branches`` are those to run; ``size_bytes`` is 0, and ``sha256`` (lower-case hex) empty, when not known.
    """

    request_id: str
    size_bytes: int = 0
    branches: frozenset[Branch] = frozenset(Branch)
    policy: str = ""
    priority: Priority = Priority.INTERACTIVE
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """The step that has begun and the share of the whole that is done, [0, 100]."""

    stage: Stage
    percent: float


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage took, and what was left of the caller's time when it began; milliseconds."""

    stage: Stage
    milliseconds: float
    budget_milliseconds: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the branches said; a side that was not asked, or did not answer, is None."""

    visual: VisualEvidence | None = None
    audio: AudioEvidence | None = None

    @property
    def motions(self) -> tuple[MotionSequence, ...]:
        """Lip motion by track."""
        return self.visual.motions if self.visual is not None else ()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that took part, once each."""
        sides = (self.visual, self.audio)
        return tuple(dict.fromkeys(model for side in sides if side is not None for model in side.models))

    @property
    def voice(self) -> VoiceSequence | None:
        """Voice features; None without speech."""
        return self.audio.voice if self.audio is not None else None


@dataclass(frozen=True, slots=True)
class Analysis:
    """The answer to one clip.

    ``fusion`` holds the verdict, ``reasons`` its grounds with those that only the gateway knows, ``branches``
    the whole ledger. ``cached`` says that it is the answer to the same bytes, given earlier.
    """

    request_id: str
    fusion: FusionResult
    reasons: tuple[ReasonCode, ...]
    branches: tuple[BranchReport, ...]
    media: MediaInfo
    timings: tuple[StageTime, ...]
    evidence: Evidence
    cached: bool = False

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """Every model that took part, once."""
        return tuple(dict.fromkeys((*self.evidence.models, *self.fusion.models)))


Event = Progress | BranchReport | Analysis


@dataclass(frozen=True, slots=True)
class Case:
    """What fusion decides on: the ledger without SYNC, what SYNC needs, the caller's wishes, and the file's hash."""

    reports: tuple[BranchReport, ...]
    evidence: Evidence
    branches: frozenset[Branch] = field(default_factory=lambda: frozenset(Branch))
    policy: str = ""
    content: str = ""


class VisualBranches(Protocol):
    """Judges the pictures of a clip."""

    async def analyze(
        self,
        survey: Sequence[Frame],
        dense: Sequence[Frame],
        branches: frozenset[Branch],
        *,
        timeout: float,
        content: str,
    ) -> VisualEvidence:
        """Score visual branches of the file of that hash within ``timeout`` seconds; raises a BonafideError."""
        ...


class AudioBranches(Protocol):
    """Judges the sound of a clip."""

    async def analyze(
        self, audio: AudioTrack, branches: frozenset[Branch], *, timeout: float, content: str
    ) -> AudioEvidence:
        """Score sound branches of the file of that hash within ``timeout`` seconds; raises a BonafideError."""
        ...


class Fusion(Protocol):
    """Turns the ledger into a verdict."""

    async def fuse(self, case: Case, *, timeout: float) -> FusionResult:
        """Decide within ``timeout`` seconds; raises a BonafideError."""
        ...
