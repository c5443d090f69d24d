"""The services' own pipelines inside one process, for training on and measuring what is served.

Nothing is implemented a second time here: clips are decoded by the gateway's code, seen by the visual
pipeline, heard by the audio pipeline and fused by the fusion pipeline, over the embedded engine. Evidence of
pictures and of sound is kept apart, so that a forgery that changes one of them costs only that one.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2

from bonafide.v1 import fusion_pb2
from services.audio.pipeline import SPOOF_MODEL, AudioPipeline, WindowPlan
from services.common.converters import motion_to_proto, report_to_proto, voice_to_proto
from services.common.errors import BonafideError
from services.common.evidence import (
    VISUAL_BRANCHES,
    AudioEvidence,
    Branch,
    BranchReport,
    FusionResult,
    Outcome,
    ReasonCode,
    VisualEvidence,
)
from services.common.inference import EmbeddedEngine, InferenceEngine
from services.common.media import AudioTrack, Frame
from services.common.models import ModelRepository
from services.common.settings import EngineChoice
from services.fusion.converters import input_from_proto
from services.fusion.pipeline import FusionInput, FusionPipeline
from services.fusion.store import SHIPPED_HEADS, HeadStore
from services.fusion.synchrony import Synchrony
from services.gateway.decoding import DecodedClip, decode
from services.gateway.limits import DecodeLimits
from services.gateway.sampling import SamplingPlan
from services.visual.ensemble import read_ensemble
from services.visual.pipeline import OPTIONAL_MODELS, REQUIRED_MODELS, VisualPipeline
from services.visual.settings import VisualSettings

ROOT = Path(__file__).parents[1]
MODEL_REPOSITORY = ROOT / "model_repository"
TIMEOUT_SECONDS = 900.0
SOUND_ONLY = SamplingPlan(survey_frames=1, dense_us=0)
"""The cheapest plan: nothing but one picture beside the sound."""
_VISUAL_CODE = ("services/gateway", "services/visual")
_AUDIO_CODE = ("services/audio", "services/gateway")
_PLUMBING = frozenset({"__main__", "servicer", "converters", "settings"})
_DECODING = frozenset({"decoding", "sampling", "video", "sound", "scanning", "pictures", "containers", "stills"})


class ServedPipelines:
    """Decode, visual, audio and fusion pipelines of one process.

    Args:
        models: the model repository.
        heads: directory of the fusion heads and policies.
        engine: where the networks run; an embedded engine over ``models`` when None.
    """

    def __init__(
        self,
        models: Path = MODEL_REPOSITORY,
        heads: Path = SHIPPED_HEADS,
        engine: InferenceEngine | None = None,
    ) -> None:
        cv2.setNumThreads(1)
        self.repository = ModelRepository(models)
        self.engine = engine or EmbeddedEngine(self.repository)
        settings = VisualSettings(model_repository=models, engine=EngineChoice.EMBEDDED)
        self._visual = VisualPipeline(self.engine, settings)
        self._audio = AudioPipeline(self.engine, self.repository, WindowPlan())
        self._synchrony = Synchrony(self.engine, self.repository)
        self.heads = HeadStore(heads, repository=self.repository)
        self.heads_fault = ""
        try:
            self.heads.refresh()
        except BonafideError as error:
            self.heads_fault = error.message

    def decode(self, path: Path, plan: SamplingPlan | None = None) -> DecodedClip:
        """Decode a file as the gateway does.

        Raises:
            BonafideError: it is refused.
        """
        with path.open("rb") as stream:
            return decode(stream, plan, DecodeLimits(threads=1, max_seconds=TIMEOUT_SECONDS))

    def see(self, survey: Sequence[Frame], dense: Sequence[Frame]) -> VisualEvidence:
        """What the visual pipeline says of a clip's pictures."""
        wanted = frozenset(VISUAL_BRANCHES)
        return asyncio.run(self._visual.analyze(survey, dense, wanted, timeout=TIMEOUT_SECONDS))

    def hear(self, audio: AudioTrack | None) -> AudioEvidence:
        """What the audio pipeline says of a clip's sound; without sound, what the gateway says."""
        if audio is None:
            return AudioEvidence((BranchReport(Branch.AUDIO, Outcome.NOT_APPLICABLE, ReasonCode.NO_AUDIO),))
        return asyncio.run(self._audio.analyze(audio, frozenset(), timeout=TIMEOUT_SECONDS))

    def synchrony(self, clip: FusionInput) -> BranchReport:
        """The SYNC line of a clip's ledger."""
        found = self._synchrony.score(clip.motions, clip.voice, clip.reports, wanted=True, timeout=TIMEOUT_SECONDS)
        return asyncio.run(found).report

    def fuse(self, clip: FusionInput, policy: str = "") -> FusionResult:
        """The verdict of the fusion pipeline.

        Raises:
            UnavailableError: there are no heads that can be trusted (see ``heads_fault``).
        """
        pipeline = FusionPipeline(self.heads, self._synchrony)
        return asyncio.run(pipeline.fuse(replace(clip, policy=policy), timeout=TIMEOUT_SECONDS))


def seen(evidence: VisualEvidence) -> FusionInput:
    """The part of visual evidence that fusion reads."""
    return FusionInput(evidence.reports, evidence.motions)


def heard(evidence: AudioEvidence) -> FusionInput:
    """The part of audio evidence that fusion reads."""
    return FusionInput(evidence.reports, (), evidence.voice)


def joined(pictures: FusionInput, sound: FusionInput) -> FusionInput:
    """Both halves of a clip's ledger."""
    return FusionInput((*pictures.reports, *sound.reports), pictures.motions, sound.voice)


def to_bytes(clip: FusionInput) -> bytes:
    """A ledger, or half of one, in the contract's own wire form."""
    return fusion_pb2.FuseRequest(
        reports=[report_to_proto(report) for report in clip.reports],
        motions=[motion_to_proto(motion) for motion in clip.motions],
        voice=voice_to_proto(clip.voice) if clip.voice is not None else None,
    ).SerializeToString()


def from_bytes(data: bytes) -> FusionInput:
    """The inverse of ``to_bytes``."""
    return input_from_proto(fusion_pb2.FuseRequest.FromString(data))


def visual_fingerprint(models: Path = MODEL_REPOSITORY) -> str:
    """Changes whenever the visual evidence of a clip may: its models' hashes and its code."""
    ensemble = read_ensemble(ModelRepository(models))
    state = _fingerprint(models, (*REQUIRED_MODELS, *ensemble.companions, *OPTIONAL_MODELS), _VISUAL_CODE)
    return hashlib.sha256(f"{state}{ensemble}".encode()).hexdigest()[:16]


def audio_fingerprint(models: Path = MODEL_REPOSITORY) -> str:
    """Changes whenever the audio evidence of a clip may: its models' hashes and its code."""
    return _fingerprint(models, (SPOOF_MODEL,), _AUDIO_CODE)


def _fingerprint(models: Path, names: Sequence[str], folders: Sequence[str]) -> str:
    repository = ModelRepository(models)
    present = set(repository.names())
    parts = [f"{name}:{repository.card(name).sha256}" for name in sorted(names) if name in present]
    files = (path for folder in folders for path in sorted((ROOT / folder).glob("*.py")))
    parts.extend(_code(path) for path in files if _matters(path))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def code_fingerprint(files: Sequence[Path]) -> str:
    """Changes whenever what some modules do may: comments, layout and docstrings do not count."""
    return hashlib.sha256("\n".join(_code(path) for path in files).encode()).hexdigest()[:16]


def _matters(path: Path) -> bool:
    if path.parent.name == "gateway":
        return path.stem in _DECODING
    return path.stem not in _PLUMBING


def _code(path: Path) -> str:
    """What a module does, without comments, layout and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [  # type: ignore[attr-defined]
                part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
    return ast.dump(tree)
