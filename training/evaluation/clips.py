"""Clips, and forgeries of the real ones, through the whole served pipeline.

Evidence of pictures and of sound is cached by itself: a dub needs a stranger's sound and the pictures that
were already looked at; a still needs new pictures and the old sound. So a forgery costs what differs.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from services.common.errors import BonafideError
from services.common.media import AudioTrack
from services.fusion.pipeline import FusionInput
from services.gateway.decoding import DecodedClip
from training.evaluation.cache import BlobCache, digest
from training.forging import Forgery, dub, freeze, generator, shift, still_index
from training.served import (
    SOUND_ONLY,
    ServedPipelines,
    audio_fingerprint,
    from_bytes,
    heard,
    joined,
    seen,
    to_bytes,
    visual_fingerprint,
)
from training.video_codec import through_video_codec

_log = logging.getLogger("training.evaluation")
ORIGINAL = "original"
REFUSED = b"refused"
"""Cached instead of evidence when the gateway refuses a file."""
CODED = "h264_"
STILL_RATE_FACTOR = 26


@dataclass(frozen=True, slots=True)
class ClipJob:
    """One clip and the variants wanted of it.

    ``forgeries`` are to be made of it, with the sound of ``donor`` where it is dubbed and moved by
    ``shift_us`` where it is shifted; ``rate_factors`` are re-encodings of its pictures.
    """

    models: Path
    cache: Path
    path: Path
    forgeries: tuple[Forgery, ...] = ()
    donor: Path | None = None
    shift_us: int = 0
    rate_factors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ClipEvidence:
    """The ledger before fusion of every variant that could be made; empty when the file was refused."""

    variants: Mapping[str, FusionInput]


def collect(job: ClipJob) -> ClipEvidence:
    """Evidence of a clip's variants, from the cache or newly made.

    A clip that fails in an unforeseen way is told of and counts as refused: one of hundreds must not end a
    long run.
    """
    try:
        return _collected(job)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("%s could not be measured", job.path.name)
        return ClipEvidence({})


def _collected(job: ClipJob) -> ClipEvidence:
    halves = _Halves(job)
    pictures = {ORIGINAL: halves.pictures(ORIGINAL)}
    sound = {ORIGINAL: halves.sound(ORIGINAL)}
    if pictures[ORIGINAL] is None or sound[ORIGINAL] is None:
        return ClipEvidence({})
    made = {ORIGINAL: (ORIGINAL, ORIGINAL)}
    for forgery in job.forgeries:
        if forgery is Forgery.STILL:
            pictures[forgery] = halves.pictures(forgery)
            made[forgery] = (forgery, ORIGINAL)
        else:
            sound[forgery] = halves.sound(forgery)
            made[forgery] = (ORIGINAL, forgery)
    for factor in job.rate_factors:
        name = f"{CODED}{factor}"
        pictures[name] = halves.pictures(name)
        made[name] = (name, ORIGINAL)
    variants = {}
    for name, (shown, spoken) in made.items():
        half, other = pictures[shown], sound[spoken]
        if half is not None and other is not None:
            variants[str(name)] = joined(half, other)
    return ClipEvidence(variants)


class _Halves:
    """Halves of the ledger of one job's clip; decodes at most once, and only if something is missing."""

    def __init__(self, job: ClipJob) -> None:
        self._job = job
        self._store = BlobCache(job.cache)
        self._hash = _file_hash(job.path)
        self._pipelines = _pipelines(job.models)
        self._decoded: DecodedClip | None = None
        self._refused = False

    def pictures(self, variant: str) -> FusionInput | None:
        key = digest("pictures", _fingerprints(self._job.models)[0], self._hash, variant)
        return self._kept(key, lambda: self._seen(variant))

    def sound(self, variant: str) -> FusionInput | None:
        detail = ""
        if variant == Forgery.SHIFTED:
            detail = str(self._job.shift_us)
        elif variant == Forgery.DUBBED and self._job.donor is not None:
            detail = _file_hash(self._job.donor)
        key = digest("sound", _fingerprints(self._job.models)[1], self._hash, variant, detail)
        return self._kept(key, lambda: self._heard(variant))

    def _kept(self, key: str, make: Callable[[], FusionInput | None]) -> FusionInput | None:
        data = self._store.get(key)
        if data is None:
            found = make()
            data = REFUSED if found is None else to_bytes(found)
            self._store.put(key, data)
        return None if data == REFUSED else from_bytes(data)

    def _clip(self) -> DecodedClip | None:
        if self._decoded is None and not self._refused:
            try:
                self._decoded = self._pipelines.decode(self._job.path)
            except BonafideError:
                self._refused = True
        return self._decoded

    def _seen(self, variant: str) -> FusionInput | None:
        clip = self._clip()
        if clip is None:
            return None
        survey, dense = clip.survey, clip.dense
        if variant == Forgery.STILL:
            if not survey or not dense:
                return None
            chosen = still_index(self._job.path.name, len(survey))
            time_us = survey[chosen].time_us
            nearest = min(range(len(dense)), key=lambda index: abs(dense[index].time_us - time_us))
            # A still that is sent as a video has been through a codec, like any other clip.
            survey = through_video_codec(freeze(survey, chosen), STILL_RATE_FACTOR)
            dense = through_video_codec(freeze(dense, nearest), STILL_RATE_FACTOR)
        elif variant.startswith(CODED):
            factor = int(variant.removeprefix(CODED))
            survey, dense = through_video_codec(survey, factor), through_video_codec(dense, factor)
        return seen(self._pipelines.see(survey, dense))

    def _heard(self, variant: str) -> FusionInput | None:
        clip = self._clip()
        if clip is None:
            return None
        audio = clip.audio
        if variant != ORIGINAL:
            audio = self._forged_sound(audio, variant)
            if audio is None:
                return None
        return heard(self._pipelines.hear(audio))

    def _forged_sound(self, audio: AudioTrack | None, variant: str) -> AudioTrack | None:
        job = self._job
        if audio is None or not audio.samples.any():
            return None
        if variant == Forgery.SHIFTED:
            try:
                return shift(audio, job.shift_us)
            except ValueError:
                return None
        other = _sound(self._pipelines, job.donor) if job.donor is not None else None
        if other is None or not other.samples.any():
            return None
        return dub(audio, other, generator("dub", job.path.name))


def _sound(pipelines: ServedPipelines, path: Path) -> AudioTrack | None:
    """The sound of a clip alone."""
    try:
        return pipelines.decode(path, SOUND_ONLY).audio
    except BonafideError:
        return None


@cache
def _pipelines(models: Path) -> ServedPipelines:
    return ServedPipelines(models)


@cache
def _fingerprints(models: Path) -> tuple[str, str]:
    """Of the pictures' and of the sound's evidence; read once a process."""
    return visual_fingerprint(models), audio_fingerprint(models)


@cache
def _file_hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def jobs_in_order(jobs: Sequence[ClipJob]) -> list[ClipJob]:
    """The largest files first, so that no process is left with a long one at the end."""
    return sorted(jobs, key=lambda job: -job.path.stat().st_size)
