"""The labelled clips that heads are fitted on: real ones, generated ones, and those forged from real ones.

A clip is a pair of a picture part and a sound part, each kept on disk as the half of a ledger that the served
pipelines gave for it. A forgery that changes one part costs only that one, and a part is computed anew only
when its models or its code change.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from tqdm import tqdm

from services.common.errors import BonafideError
from services.common.evidence import Branch
from services.common.media import AudioTrack
from services.common.models import ModelRepository
from services.fusion.pipeline import FusionInput
from services.gateway.decoding import DecodedClip, decode
from services.gateway.limits import DecodeLimits
from training.data import Clip
from training.forging import Source, donors, dub, freeze, generator, shift, shift_of, still_index
from training.fusion.crossfit import HeldOutEngine
from training.fusion.memo import MemoEngine
from training.fusion.recipes import recompressed, self_blended, synthetic_speech
from training.fusion.statistics import with_behaviour
from training.served import (
    MODEL_REPOSITORY,
    ServedPipelines,
    audio_fingerprint,
    from_bytes,
    heard,
    joined,
    seen,
    to_bytes,
    visual_fingerprint,
)


class Kind(StrEnum):
    """What a labelled clip is."""

    REAL = "real"
    GENERATED = "generated"
    BLENDED = "self_blended"
    DUBBED = "dubbed"
    SYNTHETIC = "synthetic_speech"
    SHIFTED = "shifted"
    STILL = "still_with_speech"


class Part(StrEnum):
    """A half of a clip, as recorded or after a recipe."""

    PLAIN = "plain"
    RECOMPRESSED = "recompressed"
    BLENDED_HALF = "blended_half"
    BLENDED = "blended"
    STILL = "still"
    DUBBED = "dubbed"
    SYNTHETIC = "synthetic"
    SHIFTED = "shifted"


FACE_BRANCHES = frozenset({Branch.PATCH, Branch.FRAME, Branch.TEMPORAL})
VISIBLE_TO: Mapping[Kind, frozenset[Branch]] = MappingProxyType(
    {
        Kind.REAL: frozenset(Branch),
        Kind.GENERATED: FACE_BRANCHES,
        Kind.BLENDED: FACE_BRANCHES,
        Kind.DUBBED: frozenset({Branch.SYNC}),
        Kind.SYNTHETIC: frozenset({Branch.AUDIO, Branch.SYNC}),
        Kind.SHIFTED: frozenset({Branch.SYNC}),
        Kind.STILL: frozenset({Branch.SYNC, Branch.TEMPORAL}),
    }
)
"""Branches that can see each kind; a head learns nothing from kinds that none of its branches can see."""
RECIPES: tuple[tuple[Kind, Part, Part], ...] = (
    (Kind.REAL, Part.PLAIN, Part.PLAIN),
    (Kind.REAL, Part.RECOMPRESSED, Part.RECOMPRESSED),
    (Kind.BLENDED, Part.BLENDED, Part.PLAIN),
    (Kind.BLENDED, Part.BLENDED_HALF, Part.PLAIN),
    (Kind.DUBBED, Part.PLAIN, Part.DUBBED),
    (Kind.SYNTHETIC, Part.PLAIN, Part.SYNTHETIC),
    (Kind.SHIFTED, Part.PLAIN, Part.SHIFTED),
    (Kind.STILL, Part.STILL, Part.PLAIN),
)
"""What is made of every real clip: kind, picture part, sound part."""
EARLY_SOUND_US: Mapping[str, int] = MappingProxyType(
    {
        "RD_Radio51_real": 200_000,
        "RD_Radio21_real": 160_000,
        "RD_Radio18_real": 120_000,
        "RD_Radio8_real": 80_000,
        "RD_Radio13_real": 40_000,
        "RD_Radio4_real": 40_000,
    }
)
"""By how much the sound of some recordings runs ahead of their pictures, as the data's notes warn, microseconds;
found by canonical correlation (``training.sync.alignment.source_lags``), not by the network that is judged here. It is
put back, since such a clip is out of sync by whoever cut it, and a shift of it may be in sync."""
REENCODED = "DiffDub"
"""Clips of this source have been through a codec again already."""


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """One clip to fit on: its ledger without SYNC, and what is known of it."""

    name: str
    group: str
    source: str
    kind: Kind
    ledger: FusionInput

    @property
    def fake(self) -> int:
        """1 unless real."""
        return int(self.kind is not Kind.REAL)


class Evidence:
    """Computes and keeps halves of ledgers."""

    def __init__(self, cache: Path, seed: int, models: Path = MODEL_REPOSITORY) -> None:
        self._cache = cache
        self._seed = seed
        self._engine = MemoEngine(ModelRepository(models), cache / "memo.sqlite")
        self.held_out = HeldOutEngine(self._engine)
        self.pipelines = ServedPipelines(models, engine=self.held_out)
        self._models = models
        self._states: dict[str, str] = {}
        self._last: tuple[str, DecodedClip] | None = None

    def pictures(self, clip: Clip, part: Part) -> FusionInput:
        """What the served visual pipeline says of a clip's pictures after a recipe.

        Raises:
            BonafideError: the file is refused.
        """
        return self._kept("pictures", clip, part.value, lambda: self._see(clip, part))

    def sound(self, clip: Clip, part: Part, donor: Clip | None = None) -> FusionInput:
        """What the served audio pipeline says of a clip's sound after a recipe; ``donor`` is for DUBBED.

        Raises:
            BonafideError: a file is refused.
        """
        recipe = f"{part.value}:{donor.example.file}" if donor is not None else part.value
        if early := early_by(clip.example.file):
            recipe = f"{recipe}:{early}"
        return self._kept("sound", clip, recipe, lambda: self._hear(clip, part, donor))

    def _kept(self, half: str, clip: Clip, recipe: str, make: Callable[[], FusionInput]) -> FusionInput:
        name = f"{clip.path.stat().st_size}:{clip.example.file}:{recipe}:{self._seed}:{self._state(half)}"
        path = self._cache / half / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.bin"
        if path.is_file():
            return from_bytes(path.read_bytes())
        self.held_out.turn_to(clip.example.file)
        ledger = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(ledger))
        return ledger

    def _state(self, half: str) -> str:
        """Changes whenever evidence of this half may."""
        if half not in self._states:
            state = visual_fingerprint(self._models) if half == "pictures" else audio_fingerprint(self._models)
            self._states[half] = f"{state}:{self.held_out.held_out}"
        return self._states[half]

    def _see(self, clip: Clip, part: Part) -> FusionInput:
        decoded = self._decoded(clip, recode=part is Part.RECOMPRESSED)
        survey, dense, name = decoded.survey, decoded.dense, clip.example.file
        if part in {Part.BLENDED, Part.BLENDED_HALF}:
            strength = 1.0 if part is Part.BLENDED else 0.5
            survey = self_blended(survey, self._engine, name, strength, self._seed)
        elif part is Part.STILL:
            # Survey and dense frames must show the same picture, so both are frozen at the same time.
            time_us = survey[still_index(name, len(survey), self._seed)].time_us
            nearest = min(range(len(dense)), key=lambda at: abs(dense[at].time_us - time_us))
            survey = freeze(survey, still_index(name, len(survey), self._seed))
            dense = freeze(dense, nearest)
        return seen(with_behaviour(self.pipelines.see(survey, dense)))

    def _hear(self, clip: Clip, part: Part, donor: Clip | None) -> FusionInput:
        own = self._decoded(clip, recode=part is Part.RECOMPRESSED).audio
        name = clip.example.file
        if own is None:
            return heard(self.pipelines.hear(None))
        own = shift(own, early_by(name))
        if part is Part.SHIFTED:
            own = shift(own, shift_of(name, self._seed))
        elif part is Part.SYNTHETIC:
            speech = synthetic_speech(name, own.samples.size / 16_000 + 1, self._seed)
            own = dub(own, AudioTrack(0, speech), generator("dub", name, self._seed))
        elif donor is not None:
            other = self._decoded(donor, recode=False).audio
            if other is not None:
                own = dub(own, other, generator("dub", name, self._seed))
        return heard(self.pipelines.hear(own))

    def _decoded(self, clip: Clip, *, recode: bool) -> DecodedClip:
        """The clip, decoded; the last one is remembered, since its parts are asked for one after the other."""
        key = f"{clip.path}:{recode}"
        if self._last is None or self._last[0] != key:
            limits = DecodeLimits(threads=1, max_seconds=600)
            with io.BytesIO(self._recoded(clip)) if recode else clip.path.open("rb") as stream:
                self._last = (key, decode(stream, None, limits))
        return self._last[1]

    def _recoded(self, clip: Clip) -> bytes:
        path = self._cache / "recompressed" / f"{clip.example.file}.{self._seed}.mp4"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(recompressed(clip.path, clip.example.file, self._seed))
        return path.read_bytes()


def early_by(name: str) -> int:
    """By how much the sound of a clip of the manifest runs ahead of its picture, microseconds."""
    return next((early for recording, early in EARLY_SOUND_US.items() if recording in name), 0)


def labelled_clips(
    clips: Sequence[Clip], evidence: Evidence, seed: int, branches: frozenset[Branch]
) -> list[LabelledClip]:
    """All clips of the corpus with their ledgers, from the cache where nothing has changed.

    Args:
        clips: the manifest's clips.
        evidence: computes or recalls each part.
        seed: of donors.
        branches: those that are deployed; kinds that none of them can see are not made.
    """
    real = [clip for clip in clips if clip.example.label == "real"]
    voiced = [clip for clip in real if clip.example.fields.get("has_audio") == "1"]
    sources = [Source(c.example.file, c.example.group, float(c.example.fields["seconds"])) for c in voiced]
    by_name = {clip.example.file: clip for clip in voiced}
    lenders = {name: by_name[donor] for name, donor in donors(sources, seed).items()}
    labelled: list[LabelledClip] = []
    for clip in tqdm(clips, desc="clips", unit="clip"):
        try:
            labelled += _variants(clip, evidence, lenders, branches)
        except BonafideError as error:
            tqdm.write(f"left out {clip.example.file}: {error.message}")
    return labelled


def _variants(
    clip: Clip, evidence: Evidence, lenders: Mapping[str, Clip], branches: frozenset[Branch]
) -> list[LabelledClip]:
    name, group = clip.example.file, clip.example.group
    source = clip.example.fields.get("source", "").split(":")[0]
    made: list[LabelledClip] = []
    for kind, pictures, sound in _plans(clip):
        donor = lenders.get(name) if sound is Part.DUBBED else None
        if not VISIBLE_TO[kind] & branches or (sound is Part.DUBBED and donor is None):
            continue
        ledger = joined(evidence.pictures(clip, pictures), evidence.sound(clip, sound, donor))
        made.append(LabelledClip(f"{name}:{kind}:{pictures}:{sound}", group, source, kind, ledger))
    return made


def _plans(clip: Clip) -> list[tuple[Kind, Part, Part]]:
    """What is made of one clip of the manifest."""
    label, voiced = clip.example.label, clip.example.fields.get("has_audio") == "1"
    recoded = REENCODED not in clip.example.fields.get("source", "")
    if label == "real":
        plans = [plan for plan in RECIPES if voiced or plan[2] in {Part.PLAIN, Part.RECOMPRESSED}]
        return [plan for plan in plans if recoded or plan[1] is not Part.RECOMPRESSED]
    if label == "real_shifted":
        offset = float(clip.example.fields.get("offset_ms", "0"))
        return [(Kind.SHIFTED if offset else Kind.REAL, Part.PLAIN, Part.PLAIN)]
    if label == "real_still_speech":
        return [(Kind.STILL, Part.PLAIN, Part.PLAIN)]
    plain, again = (Kind.GENERATED, Part.PLAIN, Part.PLAIN), (Kind.GENERATED, Part.RECOMPRESSED, Part.RECOMPRESSED)
    return [plain, again] if recoded else [plain]
