"""The order in which an evaluation works: what matters most first, so that a run cut short has said it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.common.errors import BonafideError
from services.fusion.policy import PolicySet
from services.fusion.store import HeadStore
from training.data import group_fraction
from training.evaluation.degradation import PICTURE_CONDITIONS, SOUND_CONDITIONS
from training.evaluation.discovery import Collection
from training.evaluation.ledgers import ClipOptions, score_clips
from training.evaluation.rows import Row
from training.evaluation.speech import score_speech
from training.evaluation.stills import score_stills
from training.evaluation.summary import Measured
from training.evaluation.work import Means

STILLS_A_CLASS = 120
"""Pictures of each class that robustness curves are measured on."""
UTTERANCES_A_CLASS = 400
"""Utterances of each class that degraded conditions are measured on."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for; ``data`` is None for the held-out parts of the shared data."""

    data: Path | None
    out: Path
    models: Path
    heads: Path
    cache: Path
    processes: int
    robustness: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """What is known after a stage; ``refused`` are clips that the gateway refused or that failed."""

    title: str
    measured: Measured
    refused: tuple[str, ...] = ()


def stages(collection: Collection, options: Options) -> Iterator[Stage]:
    """Measure stage by stage; each stage holds all that the ones before it measured."""
    means = Means(options.models, options.cache, options.processes)
    measured = Measured(stills=score_stills(collection.faces, means))
    yield Stage("pictures", measured)
    speech = score_speech(collection.speech, means)
    measured = replace(measured, speech=speech)
    yield Stage("speech", measured)
    clips, refused = _clips(collection, options, coded=False)
    measured = replace(measured, clips=clips)
    yield Stage("clips", measured, refused)
    if not options.robustness:
        return
    measured = replace(measured, speech=[*speech, *_degraded_speech(collection, means, speech)])
    yield Stage("degraded speech", measured, refused)
    measured = replace(measured, stills=[*measured.stills, *_degraded_stills(collection, means, measured.stills)])
    yield Stage("degraded pictures", measured, refused)
    if options.data is not None:
        clips, refused = _clips(collection, options, coded=True)
    yield Stage("re-encoded clips", replace(measured, clips=clips), refused)


def _clips(collection: Collection, options: Options, *, coded: bool) -> tuple[list[Row], tuple[str, ...]]:
    if options.data is None:  # the models have learnt from these clips
        # Only here: it brings torch, which every process would load otherwise.
        from training.evaluation.cross_validated import held_out_clip_rows  # noqa: PLC0415

        clips = [clip for part in collection.clips for clip in part.clips]
        return held_out_clip_rows(clips, _policies(options.heads)) if clips else [], ()
    wanted = ClipOptions(options.models, options.heads, options.cache, options.processes, coded)
    found = [score_clips(part, wanted) for part in collection.clips]
    rows = [row for part in found for row in part.rows]
    return rows, tuple(name for part in found for name in part.refused)


def _policies(heads: Path) -> PolicySet | None:
    store = HeadStore(heads)
    try:
        store.refresh()
    except BonafideError:
        return None
    return store.policies


def _degraded_stills(collection: Collection, means: Means, clean: Sequence[Row]) -> list[Row]:
    chosen = _chosen(clean, STILLS_A_CLASS)
    if not chosen:
        return []
    parts = (score_stills(collection.faces, means, condition.name, chosen) for condition in PICTURE_CONDITIONS)
    return [row for part in parts for row in part]


def _degraded_speech(collection: Collection, means: Means, clean: Sequence[Row]) -> list[Row]:
    chosen = _chosen(clean, UTTERANCES_A_CLASS)
    parts = (score_speech(collection.speech, means, condition, chosen) for condition in SOUND_CONDITIONS)
    return [row for part in parts for row in part]


def _chosen(rows: Sequence[Row], most_a_class: int) -> frozenset[str]:
    """The same rows in every run, some of each class, as ``set/file``."""
    chosen: set[str] = set()
    for label in (0, 1):
        names = (f"{row.collection}/{row.name}" for row in rows if row.label == label)
        chosen |= set(sorted(names, key=group_fraction)[:most_a_class])
    return frozenset(chosen)
