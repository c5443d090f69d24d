"""The floor that the stack is held against: the same work in one process, with no RPC and no Triton.

The same decoder, pipelines and ONNX files are called one after the other; only the hops between them are
missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from services.audio.pipeline import AudioPipeline
from services.common.evidence import VISUAL_BRANCHES, AudioEvidence, Branch, VisualEvidence
from services.fusion.pipeline import FusionInput, FusionPipeline
from services.gateway.decoding import decode
from services.gateway.limits import DecodeLimits
from services.gateway.sampling import SamplingPlan
from services.visual.pipeline import VisualPipeline

NO_LIMIT = 600.0


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage of one clip cost, seconds."""

    processor: float
    wall: float


class RawLoop:
    """Analyses clips one after the other in this process and keeps what each stage cost."""

    def __init__(self, visual: VisualPipeline, audio: AudioPipeline, fusion: FusionPipeline) -> None:
        cv2.setNumThreads(1)
        self._visual = visual
        self._audio = audio
        self._fusion = fusion

    async def analyze(self, path: Path) -> dict[str, StageCost]:
        """Analyse one clip; answers stage → cost."""
        costs: dict[str, StageCost] = {}
        seen, heard = VisualEvidence(()), AudioEvidence(())
        with path.open("rb") as file, _measured("decode", costs):
            clip = decode(file, SamplingPlan(), DecodeLimits(), lambda: False)
        with _measured("visual", costs):
            if clip.survey or clip.dense:
                seen = await self._visual.analyze(clip.survey, clip.dense, frozenset(VISUAL_BRANCHES), timeout=NO_LIMIT)
        with _measured("audio", costs):
            if clip.audio is not None:
                heard = await self._audio.analyze(clip.audio, frozenset({Branch.AUDIO}), timeout=NO_LIMIT)
        with _measured("fusion", costs):
            ledger = FusionInput((*seen.reports, *heard.reports), seen.motions, heard.voice)
            await self._fusion.fuse(ledger, timeout=NO_LIMIT)
        return costs


@contextmanager
def _measured(stage: str, costs: dict[str, StageCost]) -> Iterator[None]:
    processor, wall = time.process_time(), time.perf_counter()
    yield
    costs[stage] = StageCost(time.process_time() - processor, time.perf_counter() - wall)
