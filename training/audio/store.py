"""A resumable cache of what is slow to make: prepared waveforms and their features, by condition."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from services.audio.preparation import prepare
from services.common.media import SAMPLE_RATE
from training.audio.channels import Channel, Samples
from training.audio.corpus import Utterance
from training.audio.features import FineStructure

SAVE_EVERY = 300


class FeatureStore:
    """Features of utterances under named channels, kept under one directory.

    ``extractor`` maps prepared samples [1, T] to one row [1, features].

    The file of a condition carries a fingerprint of what preparation and features make of a fixed sound,
    so that changed features are never read from an old cache.
    """

    def __init__(self, folder: Path, extractor: nn.Module | None = None) -> None:
        self._folder = folder
        self._extractor = (extractor or FineStructure()).eval()
        self._fingerprint = self._behaviour()

    def _behaviour(self) -> str:
        noise = np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32)
        values = self._rows(prepare(noise * np.linspace(0.0, 1.0, noise.size, dtype=np.float32)))
        return hashlib.sha256(np.round(values, 2).tobytes()).hexdigest()[:12]

    def features(
        self, utterances: Sequence[Utterance], condition: str, channel: Channel | None = None
    ) -> npt.NDArray[np.float32]:
        """Feature rows, float32 [len(utterances), features]; those not cached are computed and kept.

        Args:
            utterances: any utterances; each is known by its key.
            condition: name under which the rows are kept.
            channel: applied before preparation; None leaves the sound as it is. Its random numbers depend
                on the utterance and the condition alone.
        """
        known = self._load(condition)
        missing = [utterance for utterance in utterances if utterance.key not in known]
        for index, utterance in enumerate(missing, 1):
            known[utterance.key] = self._extract(utterance, condition, channel)
            if index % SAVE_EVERY == 0:
                self._save(condition, known)
        if missing:
            self._save(condition, known)
        return np.stack([known[utterance.key] for utterance in utterances])

    def _extract(self, utterance: Utterance, condition: str, channel: Channel | None) -> npt.NDArray[np.float32]:
        return self._rows(prepared(utterance, condition, channel))

    def _rows(self, samples: Samples) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(self._extractor(torch.from_numpy(samples)[None])[0].numpy())

    def _path(self, condition: str) -> Path:
        return self._folder / f"{condition}-{self._fingerprint}.npz"

    def _load(self, condition: str) -> dict[str, npt.NDArray[np.float32]]:
        if not self._path(condition).is_file():
            return {}
        with np.load(self._path(condition)) as stored:
            return dict(zip(stored["keys"].tolist(), stored["rows"], strict=True))

    def _save(self, condition: str, known: dict[str, npt.NDArray[np.float32]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._path(condition).with_suffix(".partial.npz")
        np.savez(partial, keys=np.array(list(known)), rows=np.stack(list(known.values())))
        partial.replace(self._path(condition))


def prepared(utterance: Utterance, condition: str, channel: Channel | None) -> Samples:
    """What the model hears of an utterance: channel, then preparation."""
    samples = utterance.samples
    if channel is not None:
        seed = zlib.crc32(f"{condition}:{utterance.key}".encode())
        samples = channel(samples, np.random.default_rng(seed))
    return prepare(samples)
