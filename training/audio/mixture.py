"""One expert for each kind of channel, and a gate that hears which channel it is.

Lossy codecs, band limits and noise wipe out different parts of the fine structure. A single head trained on
everything loses on clean speech what it gains on the rest; a head trained on clean speech is confidently
wrong on a lossy soundtrack. Which channel a sound came through is easy to hear from the same statistics,
though, and says nothing of the label, since both classes went through all of them alike. So each family of
channels has its own head *and its own calibration*, and the gate mixes their log-odds (Jacobs, Jordan,
Nowlan and Hinton 1991, with the gate trained on its own).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from training.audio.channels import Family
from training.audio.heads import (
    Calibration,
    Features,
    Flags,
    Floats,
    LinearHead,
    Scaler,
    fit_linear,
    fit_scaler,
)

Families = Mapping[str, Family]
"""By name."""


@dataclass(frozen=True, slots=True)
class MixtureSettings:
    """What is chosen before training.

    ``penalty`` is the experts' C; ``gate_penalty`` the gate's C; ``gate_every`` says that each so-many-th
    utterance trains the gate; ``shrinkage`` see ``fit_calibrations``.
    """

    penalty: float = 0.005
    gate_penalty: float = 0.001
    gate_every: int = 5
    shrinkage: float = 0.85


@dataclass(frozen=True, slots=True)
class Gate:
    """Softmax over families of standardised features · weight + bias; float64 [features, k] and [k]."""

    scaler: Scaler
    weight: Floats
    bias: Floats

    def shares(self, features: Features) -> Floats:
        """How much each family has to say: float64 [n, k], rows sum to 1."""
        values = self.scaler.apply(features) @ self.weight + self.bias
        raised = np.exp(values - values.max(1, keepdims=True))
        return np.asarray(raised / raised.sum(1, keepdims=True), np.float64)


@dataclass(frozen=True, slots=True)
class Mixture:
    """A gate and, for each of its families in order, a head with its calibration."""

    families: tuple[str, ...]
    gate: Gate
    heads: tuple[LinearHead, ...]
    calibrations: tuple[Calibration, ...]

    def expert_scores(self, features: Features) -> Floats:
        """Uncalibrated log-odds of every expert: float64 [n, k]."""
        return np.stack([head.score(features) for head in self.heads], 1)

    def logits(self, features: Features) -> Floats:
        """Calibrated log-odds: float64 [n]."""
        return mixed(self.gate.shares(features), self.expert_scores(features), self.calibrations)

    def calibrated(self, calibrations: Sequence[Calibration]) -> Mixture:
        """The same mixture with other calibrations."""
        return replace(self, calibrations=tuple(calibrations))


def mixed(shares: Floats, scores: Floats, calibrations: Sequence[Calibration]) -> Floats:
    """Mean of the experts' calibrated log-odds, weighted by the gate: [n, k] and [n, k] to float64 [n]."""
    calibrated = [calibration.apply(scores[:, index]) for index, calibration in enumerate(calibrations)]
    return np.asarray((shares * np.stack(calibrated, 1)).sum(1))


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """Features of the same n utterances by channel, each [n, features]; their labels and weights, [n]."""

    table: Mapping[str, Features]
    fake: Flags
    weights: Floats


def fit_mixture(rows: TrainingRows, families: Families, settings: MixtureSettings) -> Mixture:
    """Train gate and experts; calibrations are left as they are (slope 1, offset 0)."""
    heads = tuple(_fit_expert(rows, families, family, settings) for family in families)
    untouched = tuple(Calibration(1.0, 0.0) for _ in families)
    return Mixture(tuple(families), _fit_gate(rows.table, families, settings), heads, untouched)


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one channel, standardised, [n, features], and what share of an expert's training they are."""

    standard: Features
    share: float


def _fit_expert(rows: TrainingRows, families: Families, family: str, settings: MixtureSettings) -> LinearHead:
    own = families[family].channels
    weights = np.tile(rows.weights, len(own))
    scaler = fit_scaler(np.concatenate([rows.table[channel] for channel in own]), weights)
    parts = [_Part(scaler.apply(rows.table[channel]), 1.0 / len(own)) for channel in own]
    parts += [part for kin in families[family].kin for part in _lent(rows, families[kin])]
    shares = np.array([part.share for part in parts])
    weights = np.outer(shares / shares.sum(), rows.weights).ravel()
    standard = np.concatenate([part.standard for part in parts])
    return fit_linear(scaler, standard, np.tile(rows.fake, len(parts)), weights, settings.penalty)


def _lent(rows: TrainingRows, family: Family) -> Iterator[_Part]:
    """Rows for another family's expert, each channel standardised by itself: what is learnt is the cue alone."""
    for channel in family.channels:
        features = rows.table[channel]
        yield _Part(fit_scaler(features, rows.weights).apply(features), 1.0 / len(family.channels))


def _fit_gate(table: Mapping[str, Features], families: Families, settings: MixtureSettings) -> Gate:
    rows: list[Features] = []
    targets: list[npt.NDArray[np.int64]] = []
    weights: list[Floats] = []
    for index, family in enumerate(families.values()):
        for channel in family.channels:
            part = table[channel][:: settings.gate_every]
            rows.append(part)
            targets.append(np.full(len(part), index))
            weights.append(np.full(len(part), 1.0 / len(family.channels)))
    features, weight = np.concatenate(rows), np.concatenate(weights)
    scaler = fit_scaler(features, weight)
    model = LogisticRegression(C=settings.gate_penalty, max_iter=300)
    model.fit(scaler.apply(features), np.concatenate(targets), sample_weight=weight)
    weight, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    if len(families) == 2:  # of two classes scikit-learn gives one set of coefficients
        weight, bias = np.hstack([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return Gate(scaler, weight, bias)


@dataclass(frozen=True, slots=True)
class Scored:
    """Of n utterances whose source was held out, through one channel: experts' scores and shares, [n, k] each."""

    scores: Floats
    shares: Floats


def fit_calibrations(
    scored: Mapping[str, Scored], fake: Flags, weights: Floats, families: Families, shrinkage: float
) -> tuple[Calibration, ...]:
    """Calibrate all experts together, as the gate mixes them: Platt scaling (1999) of the mixture.

    Calibrated one by one, experts are right on their own channel alone; but the gate gives other experts a say
    wherever a channel resembles theirs, and what they add there is biased.

    Args:
        scored: by channel.
        fake: [n].
        weights: [n].
        families: as trained; each weighs the same.
        shrinkage: of all parameters, at most 1. Sources met in use differ more from the training sources than
            these do from each other, so log-odds that suit held-out sources are still too bold for them.
    """
    channels = [(name, 1.0 / len(own.channels)) for own in families.values() for name in own.channels]
    scale = np.concatenate([scored[name].scores for name, _ in channels]).std(0)
    parts = [scored[name] for name, _ in channels]
    rows = np.concatenate([np.hstack([part.shares * part.scores / scale, part.shares]) for part in parts])
    importance = np.concatenate([weights * share for _, share in channels])
    model = LogisticRegression(C=1e3, fit_intercept=False, max_iter=1000)
    model.fit(rows, np.tile(fake, len(parts)), sample_weight=importance)
    slopes, offsets = np.split(shrinkage * model.coef_[0], 2)
    return tuple(Calibration(float(a / s), float(b)) for a, b, s in zip(slopes, offsets, scale, strict=True))
