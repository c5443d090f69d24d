"""Utterances through the served audio pipeline: speech found, windows cut, prepared and scored."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from services.common.evidence import Outcome
from services.common.media import SAMPLE_RATE, AudioTrack
from training.data import Example
from training.evaluation.cache import ScoreCache, digest
from training.evaluation.degradation import SOUND_CONDITIONS
from training.evaluation.discovery import LabelledSet
from training.evaluation.rows import CLEAN, Row
from training.evaluation.work import Means, done
from training.forging import generator
from training.served import ServedPipelines, audio_fingerprint

PART = 16
"""Utterances of one job."""
PROBABILITY = "audio"
NO_SCORE = "no_score"
"""Set when the pipeline found too little speech."""


@dataclass(frozen=True, slots=True)
class SpeechJob:
    """Some utterances under one condition, by their cache keys."""

    models: Path
    condition: str
    utterances: tuple[tuple[str, bytes], ...]


def score_speech(
    sets: Sequence[LabelledSet], means: Means, condition: str = CLEAN, chosen: frozenset[str] | None = None
) -> list[Row]:
    """Rows of all utterances of some sets.

    Args:
        sets: speech sets.
        means: where and how.
        condition: name of a sound condition, or ``clean``.
        chosen: files to take, as ``set/file``; None means all.

    Returns:
        One row an utterance that could be read; those without enough speech have no score.
    """
    known = ScoreCache(means.cache / f"speech-{audio_fingerprint(means.models)}.jsonl")
    wanted: list[tuple[LabelledSet, Example, str]] = []
    fresh: dict[str, bytes] = {}
    for part in sets:
        for example in part.examples:
            if chosen is not None and f"{part.name}/{example.file}" not in chosen:
                continue
            try:
                encoded = part.archive.read(example)
            except KeyError:
                continue  # listed, but not in the archive
            key = digest(encoded, condition)
            wanted.append((part, example, key))
            if key not in known:
                fresh[key] = encoded
    items = list(fresh.items())
    jobs = [SpeechJob(means.models, condition, tuple(items[at : at + PART])) for at in range(0, len(items), PART)]
    for _, scored in done(score_utterances, jobs, title=f"speech, {condition}", processes=means.processes):
        known.put(scored)
    return [_row(part, example, known[key], condition) for part, example, key in wanted if known[key]]


def _row(part: LabelledSet, example: Example, values: Mapping[str, float], condition: str) -> Row:
    fields = example.fields
    scores = {PROBABILITY: values[PROBABILITY]} if PROBABILITY in values else {}
    return Row(
        name=example.file,
        collection=part.name,
        label=example.fake,
        group=example.group,
        scores=scores,
        source=fields.get("source") or part.name,
        method=(fields.get("attack") or fields.get("system") or "") if example.fake else "",
        condition=condition,
        traits={name: fields[name] for name in ("native_rate", "origin_codec", "language", "sex") if fields.get(name)},
    )


def score_utterances(job: SpeechJob) -> dict[str, dict[str, float]]:
    """Cache key → P(deepfake), or that there was no score; empty for what is no sound."""
    pipelines = _pipelines(job.models)
    results: dict[str, dict[str, float]] = {}
    for key, encoded in job.utterances:
        try:
            samples, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            results[key] = {}
            continue
        samples = samples.mean(axis=1)
        if rate != SAMPLE_RATE:
            samples = np.asarray(resample_poly(samples, SAMPLE_RATE, rate), dtype=np.float32)
        if job.condition != CLEAN and samples.size:
            samples = SOUND_CONDITIONS[job.condition](samples, generator(key))
        report = pipelines.hear(AudioTrack(0, np.ascontiguousarray(samples, dtype=np.float32))).reports[0]
        if report.outcome is Outcome.SCORED and report.score is not None:
            results[key] = {PROBABILITY: report.score}
        else:
            results[key] = {NO_SCORE: 1.0}
    return results


@cache
def _pipelines(models: Path) -> ServedPipelines:
    return ServedPipelines(models)
