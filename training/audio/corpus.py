"""The utterances that the spoof classifier learns from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data import zip_set

SETS = ("speech_train", "speech_more_train")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording or synthesis: ``samples`` is float32 [n] at 16 kHz, ``key`` its SHA-256."""

    key: str
    fake: bool
    source: str
    speaker: str
    system: str
    attack: str
    samples: npt.NDArray[np.float32]


def read_utterances(data: Path) -> list[Utterance]:
    """All utterances of both speech sets under ``data``, in the order of their tables.

    Raises:
        FileNotFoundError: a set is missing.
    """
    return [utterance for name in SETS for utterance in _read_set(data, name)]


def _read_set(data: Path, name: str) -> Iterator[Utterance]:
    speech = zip_set(name, data)
    for example in speech.examples:
        fields = example.fields
        yield Utterance(
            key=fields["sha256"],
            fake=bool(example.fake),
            source=fields["source"],
            speaker=fields["speaker"],
            system=fields["system"],
            attack=fields["attack"],
            samples=speech.samples(example),
        )
    speech.close()
