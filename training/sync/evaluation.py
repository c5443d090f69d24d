"""Scores clips that the towers have not seen, in sync and out of it, and calibrates on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from training.forging import generator
from training.metrics import Measure, bootstrap, measure
from training.sync.data import SEGMENT, TalkingClip
from training.sync.network import (
    LARGEST_LAG,
    SyncNetwork,
    centred,
    lag_curve,
    lag_similarity,
    statistics,
    window_curves,
    window_motion,
)

Floats = npt.NDArray[np.float64]
IN_SYNC, SWAPPED, SHIFTED, STILL = "in_sync", "swapped", "shifted", "still"
WHOLE, HALF = "whole", "half"
SHARES = {IN_SYNC: 1.0, SWAPPED: 0.4, SHIFTED: 0.35, STILL: 0.25}
"""How much each kind weighs in the calibration; those out of sync together as much as those in sync."""
SWAPS, SHIFTS = 8, 4
SMALLEST_SHIFT, LARGEST_SHIFT = 5, 15
STILL_NOISE = (0.0001, 0.0015)
"""Trembling of landmarks on a picture that stands still, in distances between the eyes' corners."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One pairing of lips and voice, scored by towers that have not seen the lips' group.

    ``part`` says whether it is the whole clip or about half of it; ``whole`` is float64 [STATISTICS] of it,
    ``windows`` float64 [windows, STATISTICS], ``curve`` [LAGS].
    """

    clip: TalkingClip
    kind: str
    part: str
    curve: Floats
    whole: Floats
    windows: Floats


@dataclass(frozen=True, slots=True)
class Pairing:
    """Lips float32 [slots, width] and a voice float32 [slots, width], and what they are to each other."""

    kind: str
    part: str
    motion: npt.NDArray[np.float32]
    voice: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic regression over statistics, for whole clips and for windows: weights and constant."""

    clip: tuple[Tensor, Tensor]
    window: tuple[Tensor, Tensor]


def trials(network: SyncNetwork, clips: Sequence[TalkingClip], voices: Sequence[TalkingClip], seed: int) -> list[Trial]:
    """Every clip in sync, with strangers' voices, shifted, and frozen; also each at about half its length.

    Args:
        network: has not seen the groups of ``clips``.
        clips: held-out real clips.
        voices: real clips whose voices are swapped in.
        seed: of strangers, shifts and noise.
    """
    return [
        _trial(network, clip, pairing)
        for clip in clips
        for pairing in _pairings(clip, voices, generator("trials", clip.name, seed))
    ]


def _pairings(clip: TalkingClip, voices: Sequence[TalkingClip], random: np.random.Generator) -> Iterator[Pairing]:
    half = max(clip.slots // 2, SEGMENT)
    parts = ((WHOLE, slice(None)), (HALF, slice(0, half)), (HALF, slice(clip.slots - half, None)))
    for name, part in parts:
        yield Pairing(IN_SYNC, name, clip.motion[part], clip.voice[part])
    strangers = [other for other in voices if other.group != clip.group]
    for at in random.permutation(len(strangers))[:SWAPS]:
        length = min(clip.slots, strangers[at].slots)
        yield Pairing(SWAPPED, WHOLE, clip.motion[:length], strangers[at].voice[:length])
    most = min(LARGEST_SHIFT, clip.slots - SEGMENT)
    for _ in range(SHIFTS if most >= SMALLEST_SHIFT else 0):
        lag = int(random.integers(SMALLEST_SHIFT, most + 1))
        early = random.random() < 0.5
        motion, voice = (clip.motion[lag:], clip.voice[:-lag]) if early else (clip.motion[:-lag], clip.voice[lag:])
        yield Pairing(SHIFTED, WHOLE, motion, voice)
    for name, part in parts[:2]:
        frozen = clip.motion[part].mean(axis=0, keepdims=True)
        noise = random.normal(0, random.uniform(*STILL_NOISE), clip.motion[part].shape)
        yield Pairing(STILL, name, (frozen + noise).astype(np.float32), clip.voice[part])


def _trial(network: SyncNetwork, clip: TalkingClip, pairing: Pairing) -> Trial:
    with torch.inference_mode():
        lips = centred(torch.from_numpy(pairing.motion)[None])
        sound = centred(torch.from_numpy(pairing.voice)[None])
        similarity = lag_similarity(network.motion(lips), network.voice(sound))
        curve = lag_curve(similarity)
        whole = statistics(curve, (lips**2).mean(dim=(1, 2)))[0]
        windows = statistics(window_curves(similarity), window_motion(lips))[0]
    numbers = (values.double().numpy() for values in (curve[0], whole, windows))
    return Trial(clip, pairing.kind, pairing.part, *numbers)


def calibrate(scored: Sequence[Trial]) -> Calibration:
    """Fit P(out of sync) on held-out trials, for whole clips and for windows."""
    window_rows = [(trial, row) for trial in scored for row in trial.windows]
    return Calibration(
        clip=_logistic([trial.whole for trial in scored], list(scored)),
        window=_logistic([row for _, row in window_rows], [trial for trial, _ in window_rows]),
    )


def _logistic(rows: Sequence[Floats], owners: Sequence[Trial]) -> tuple[Tensor, Tensor]:
    values, labels = np.array(rows), np.array([owner.kind != IN_SYNC for owner in owners])
    mean, scale = values.mean(axis=0), values.std(axis=0) + 1e-9
    model = LogisticRegression(C=1.0, max_iter=2000)
    model.fit((values - mean) / scale, labels, sample_weight=_weights(owners))
    weights = model.coef_[0] / scale
    constant = float(model.intercept_[0] - (mean * weights).sum())
    return torch.tensor(weights, dtype=torch.float32), torch.tensor(constant, dtype=torch.float32)


def _weights(owners: Sequence[Trial]) -> Floats:
    """Each kind weighs its share, and each group in it the same; the mean is 1."""
    counts: dict[tuple[str, str], int] = {}
    for owner in owners:
        counts[owner.kind, owner.clip.group] = counts.get((owner.kind, owner.clip.group), 0) + 1
    weights = np.array([SHARES[owner.kind] / counts[owner.kind, owner.clip.group] for owner in owners])
    return np.asarray(weights / weights.mean())


def log_odds(trial: Trial, calibration: Calibration) -> float:
    """Calibrated log-odds of being out of sync."""
    weights, constant = calibration.clip
    return float(trial.whole @ weights.double().numpy() + float(constant))


def figures(scored: Sequence[Trial], calibration: Calibration, seed: int) -> dict[str, dict[str, Measure]]:
    """AUC and the rest of each kind out of sync against clips in sync, and how often the offset is right.

    Whole clips first; then a stranger's voice against halves of clips, which are harder.
    """
    whole = [trial for trial in scored if trial.part == WHOLE]
    halves = [trial for trial in scored if trial.part == HALF or trial.kind == SWAPPED]
    found = {
        f"{kind}, held-out identities": _against_in_sync(kind, whole, calibration, seed)
        for kind in (SWAPPED, SHIFTED, STILL)
    }
    found[f"{SWAPPED}, halves of clips"] = _against_in_sync(SWAPPED, halves, calibration, seed)
    found["offset of real clips, held-out identities"] = {"within_3_slots": offsets_within(scored, 3, seed)}
    return found


def _against_in_sync(kind: str, scored: Sequence[Trial], calibration: Calibration, seed: int) -> dict[str, Measure]:
    chosen = [trial for trial in scored if trial.kind in {kind, IN_SYNC}]
    values = np.array([log_odds(trial, calibration) for trial in chosen])
    labels = [int(trial.kind == kind) for trial in chosen]
    probabilities = 0.5 * (1 + np.tanh(0.5 * values))
    return measure(labels, probabilities, [trial.clip.group for trial in chosen], seed=seed)


def offsets_within(scored: Sequence[Trial], slots: int, seed: int) -> Measure:
    """Share of whole in-sync clips of known lag whose best lag is near 0."""
    whole = [t for t in scored if t.kind == IN_SYNC and t.part == WHOLE and t.clip.lag_known]
    near = np.array([abs(int(np.argmax(trial.curve)) - LARGEST_LAG) <= slots for trial in whole])
    groups = [trial.clip.group for trial in whole]
    return bootstrap(near.astype(int), near.astype(float), groups, lambda rows: float(near[rows].mean()), seed=seed)
