"""What a ledger tells beyond scores: how a face behaves and how a voice sounds, for the boosted head only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.fft import dct

from services.common.evidence import Branch, VisualEvidence, VoiceSequence
from services.fusion.pipeline import FusionInput

COEFFICIENTS = 13
BEHAVIOUR = ("blinks_per_minute", "eye_aspect_mean", "eye_aspect_deviation", "landmark_jitter")
PREFIX = "behaviour_"
SYNCHRONY = ("sync_confidence", "sync_lip_activity")
STATISTICS = (
    *(f"{PREFIX}{name}" for name in BEHAVIOUR),
    *SYNCHRONY,
    *(f"{kind}_{at}" for kind in ("mfcc_mean", "mfcc_deviation") for at in range(COEFFICIENTS)),
)
"""Names of all statistics; those that a clip lacks are NaN."""


def with_behaviour(evidence: VisualEvidence) -> VisualEvidence:
    """Visual evidence with the behaviour of the most present face among the features of FRAME, where it is kept."""
    if not evidence.tracks:
        return evidence
    behaviour = evidence.tracks[0].behaviour
    found = {f"{PREFIX}{name}": getattr(behaviour, name) for name in BEHAVIOUR}
    known = {name: float(value) for name, value in found.items() if value is not None}
    reports = tuple(
        replace(report, features={**report.features, **known}) if report.branch is Branch.FRAME else report
        for report in evidence.reports
    )
    return replace(evidence, reports=reports)


def statistics_of(ledger: FusionInput) -> dict[str, float]:
    """Name → value for all STATISTICS of a complete ledger; NaN where there is nothing to measure."""
    known: Mapping[str, float] = {name: value for report in ledger.reports for name, value in report.features.items()}
    found = dict.fromkeys(STATISTICS, float("nan"))
    found |= {name: float(known[name]) for name in STATISTICS if name in known}
    return found | (_cepstra(ledger.voice) if ledger.voice is not None else {})


def _cepstra(voice: VoiceSequence) -> dict[str, float]:
    """Means and deviations of the cepstra of log-mel rows (Davis and Mermelstein 1980)."""
    if not len(voice.values):
        return {}
    cepstra = dct(voice.values.astype(np.float64), type=2, norm="ortho", axis=1)[:, :COEFFICIENTS]
    means, deviations = cepstra.mean(axis=0), cepstra.std(axis=0)
    return {f"mfcc_mean_{at}": float(value) for at, value in enumerate(means)} | {
        f"mfcc_deviation_{at}": float(value) for at, value in enumerate(deviations)
    }
