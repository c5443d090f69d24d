"""Branches and a fusion whose answers are known, so that the gateway's own part can be told apart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.common.errors import BonafideError
from services.common.evidence import (
    VISUAL_BRANCHES,
    AudioEvidence,
    Branch,
    BranchReport,
    FusionResult,
    ModelInfo,
    MotionSequence,
    Outcome,
    PolicyInfo,
    ReasonCode,
    SpeechWindow,
    Verdict,
    VisualEvidence,
    VoiceSequence,
)
from services.common.media import AudioTrack, Frame
from services.gateway.analysis import Case

DETECTOR = ModelInfo("face_detector", "1", "ab" * 32, "embedded")
MOTION = MotionSequence(1, (0, 40_000), np.zeros((2, 3), np.float32))
VOICE = VoiceSequence(0, 10_000, np.zeros((4, 2), np.float32))


@dataclass
class Visual:
    """Scores every branch asked for 0.25, or raises, or takes its time; remembers what it was asked."""

    error: BonafideError | None = None
    seconds: float = 0.0
    tracks_skipped: int = 0
    asked: list[tuple[Sequence[Frame], Sequence[Frame], frozenset[Branch], float]] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    cancelled: bool = False
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def analyze(
        self,
        survey: Sequence[Frame],
        dense: Sequence[Frame],
        branches: frozenset[Branch],
        *,
        timeout: float,
        content: str,
    ) -> VisualEvidence:
        self.contents.append(content)
        self.asked.append((survey, dense, branches, timeout))
        self.begun.set()
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error
        lines = (
            BranchReport(branch, Outcome.SCORED, score=0.25)
            if branch in branches
            else BranchReport(branch, Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED)
            for branch in VISUAL_BRANCHES
        )
        return VisualEvidence(tuple(lines), (), self.tracks_skipped, (MOTION,), (DETECTOR,))


@dataclass
class Audio:
    """Scores the sound 0.75, or raises, or takes its time."""

    error: BonafideError | None = None
    seconds: float = 0.0
    asked: list[tuple[AudioTrack, frozenset[Branch], float]] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)

    async def analyze(
        self, audio: AudioTrack, branches: frozenset[Branch], *, timeout: float, content: str
    ) -> AudioEvidence:
        self.contents.append(content)
        self.asked.append((audio, branches, timeout))
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        report = BranchReport(Branch.AUDIO, Outcome.SCORED, score=0.75)
        return AudioEvidence((report,), (SpeechWindow(0, 4_000_000, 0.5),), 0.5, VOICE, (DETECTOR,))


@dataclass
class Fusion:
    """Answers AUTHENTIC when anything scored; remembers the case."""

    error: BonafideError | None = None
    cases: list[Case] = field(default_factory=list)

    async def fuse(self, case: Case, *, timeout: float) -> FusionResult:
        assert timeout >= 0
        self.cases.append(case)
        if self.error is not None:
            raise self.error
        scored = [line for line in case.reports if line.outcome is Outcome.SCORED]
        return FusionResult(
            verdict=Verdict.AUTHENTIC if scored else Verdict.INCONCLUSIVE,
            probability=0.1 if scored else None,
            reasons=(ReasonCode.BELOW_AUTHENTIC_THRESHOLD if scored else ReasonCode.TOO_LITTLE_EVIDENCE,),
            contributions=(),
            sync=BranchReport(Branch.SYNC, Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED),
            policy=PolicyInfo("balanced", 0.7, 0.3, 0.05),
        )
