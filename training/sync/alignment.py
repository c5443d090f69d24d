"""Finds by how much the sound of each source is off, before the towers learn from it.

Recordings are commonly off by a few slots, and some sources by more. Regularised canonical correlation
analysis (Hotelling 1936) between lips and voice is fitted, each clip is moved to the lag at which it agrees
best, and both are repeated. It has few parameters and is fitted in a second, so it finds the common clock
before a network could learn the errors of the sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter1d

from training.sync.data import BANDS, TalkingClip

Floats = npt.NDArray[np.float64]
SMOOTH = 25
"""Slots of the moving average that is taken off: slow motion is the head's, not the lips'."""
LIP_COMPONENTS, LIP_CONTEXT = 10, 4
VOICE_COMPONENTS, VOICE_CONTEXT = 24, 5
CANONICAL = 12
RIDGE = 0.1
ROUNDS = 3
PLAUSIBLE_LAG = 4
PLAUSIBLE_LAG_UNKNOWN = 8
"""Where a source is known to be off by an unmeasured number of slots."""


@dataclass(frozen=True, slots=True)
class _View:
    """Context features of one clip: lips [slots, a] and voice [slots, b]."""

    lips: Floats
    voice: Floats


def aligned(clips: Sequence[TalkingClip]) -> list[TalkingClip]:
    """The clips with each one's voice moved by the lag at which it agrees best with the others.

    Args:
        clips: of several groups.

    Returns:
        As many clips, each shorter by its lag.
    """
    lags = source_lags(clips)
    return [moved(clip, lag) for clip, lag in zip(clips, lags, strict=True)]


def without_source_lags(clips: Sequence[TalkingClip], others: Sequence[TalkingClip]) -> list[TalkingClip]:
    """Clips of which those from sources that are known to be off are moved by the lag found for them.

    Args:
        clips: to be scored.
        others: further clips to find the common clock with.
    """
    lags = source_lags([*clips, *others])
    return [clip if clip.lag_known else moved(clip, lag) for clip, lag in zip(clips, lags, strict=False)]


def source_lags(clips: Sequence[TalkingClip]) -> list[int]:
    """Slots by which the voice of each clip comes late (positive) or early."""
    views = _views(clips)
    lags = [0] * len(clips)
    for _ in range(ROUNDS):
        lips_map, voice_map, strength = _canonical(views, lags)
        for at, (clip, view) in enumerate(zip(clips, views, strict=True)):
            reach = PLAUSIBLE_LAG if clip.lag_known else PLAUSIBLE_LAG_UNKNOWN
            agreement = [
                _agreement(view.lips @ lips_map, view.voice @ voice_map, strength, lag)
                for lag in range(-reach, reach + 1)
            ]
            lags[at] = int(np.argmax(agreement)) - reach
    return lags


def moved(clip: TalkingClip, lag: int) -> TalkingClip:
    """The clip with its voice taken ``lag`` slots later; slots without a partner are dropped."""
    start, end = max(0, -lag), clip.slots - max(0, lag)
    return replace(clip, motion=clip.motion[start:end], voice=clip.voice[start + lag : end + lag])


def _views(clips: Sequence[TalkingClip]) -> list[_View]:
    lips = [_lips(clip) for clip in clips]
    voices = [_voice(clip) for clip in clips]
    lips = _with_context(_principal(lips, LIP_COMPONENTS), LIP_CONTEXT)
    voices = _with_context(_principal(voices, VOICE_COMPONENTS), VOICE_CONTEXT)
    return [_View(one, other) for one, other in zip(lips, voices, strict=True)]


def _lips(clip: TalkingClip) -> Floats:
    rows = _without_slow(clip.motion.astype(np.float64))
    return np.asarray(rows / np.sqrt((rows**2).mean() + 1e-12))


def _voice(clip: TalkingClip) -> Floats:
    rows = clip.voice.reshape(clip.slots, -1, BANDS).astype(np.float64)
    rows = np.maximum(rows, np.percentile(rows, 2))
    level, change = rows.mean(axis=1), rows[:, -1] - rows[:, 0]
    joined = _without_slow(np.concatenate([level, change], axis=1))
    return np.asarray(joined / (joined[:, :BANDS].std() + 1e-3))


def _without_slow(rows: Floats) -> Floats:
    return np.asarray(rows - uniform_filter1d(rows, SMOOTH, axis=0, mode="nearest"))


def _principal(parts: Sequence[Floats], count: int) -> list[Floats]:
    """The leading principal components of all rows, each with unit deviation."""
    rows = np.concatenate(parts)
    axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :count]
    scale = (rows @ axes).std(axis=0) + 1e-9
    return [part @ axes / scale for part in parts]


def _with_context(parts: Sequence[Floats], reach: int) -> list[Floats]:
    padded = [np.pad(part, ((reach, reach), (0, 0)), mode="edge") for part in parts]
    return [
        np.concatenate([rows[at : at + len(part)] for at in range(2 * reach + 1)], axis=1)
        for rows, part in zip(padded, parts, strict=True)
    ]


def _canonical(views: Sequence[_View], lags: Sequence[int]) -> tuple[Floats, Floats, Floats]:
    """Maps of lips and of voice to canonical variates, and the squared correlation of each pair of them."""
    pairs = [_partners(view.lips, view.voice, lag) for view, lag in zip(views, lags, strict=True)]
    lips, voice = (np.concatenate(side) for side in zip(*pairs, strict=True))
    lips, voice = lips - lips.mean(axis=0), voice - voice.mean(axis=0)
    lips_root, voice_root = (_inverse_root(side.T @ side / len(side)) for side in (lips, voice))
    left, correlation, right = np.linalg.svd(lips_root @ (lips.T @ voice / len(lips)) @ voice_root.T)
    return lips_root.T @ left[:, :CANONICAL], voice_root.T @ right[:CANONICAL].T, correlation[:CANONICAL] ** 2


def _inverse_root(covariance: Floats) -> Floats:
    ridge = RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance + ridge)))


def _partners(lips: Floats, voice: Floats, lag: int) -> tuple[Floats, Floats]:
    start, end = max(0, -lag), len(lips) - max(0, lag)
    return lips[start:end], voice[start + lag : end + lag]


def _agreement(lips: Floats, voice: Floats, strength: Floats, lag: int) -> float:
    one, other = _partners(lips, voice, lag)
    norms = ((one**2).mean(axis=0) * strength).sum() * ((other**2).mean(axis=0) * strength).sum()
    return float(((one * other).mean(axis=0) * strength).sum() / np.sqrt(norms + 1e-12))
