"""The utterances that the spoof classifier learns from, and their vocoder twins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from services.common.media import SAMPLE_RATE
from training.data import zip_set

SETS = ("speech_train", "speech_more_train")
TWIN_PREFIX = "twin:"


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

    @property
    def is_twin(self) -> bool:
        """Whether this was made here, from a recording."""
        return self.key.startswith(TWIN_PREFIX)


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


def read_twins(utterances: list[Utterance], checkpoint: str, cache: Path) -> list[Utterance]:
    """Neural-vocoder twins of all recorded utterances; those not yet in ``cache`` are made first.

    A twin keeps its recording's source and speaker, so that the two always fall on the same side of a
    split. Making one takes about 0.7 s of one core for each second of speech.
    """
    folder = cache / "twins" / checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    recorded = [utterance for utterance in utterances if not utterance.fake]
    missing = [utterance for utterance in recorded if not _twin_path(folder, utterance).is_file()]
    if missing:
        from training.audio.vocoder import Vocoder  # noqa: PLC0415 - torch and 56 MB of weights, if needed

        vocoder = Vocoder(checkpoint)
        for utterance in missing:
            made = vocoder.twin(utterance.samples, SAMPLE_RATE)
            _write_flac(_twin_path(folder, utterance), made)
    return [_as_twin(utterance, checkpoint, folder) for utterance in recorded]


def _twin_path(folder: Path, utterance: Utterance) -> Path:
    return folder / f"{utterance.key}.flac"


def _write_flac(path: Path, samples: npt.NDArray[np.float32]) -> None:
    partial = path.with_suffix(".partial")
    peak = max(float(np.abs(samples).max()), 1.0)
    soundfile.write(partial, samples / peak, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(path)


def _as_twin(utterance: Utterance, checkpoint: str, folder: Path) -> Utterance:
    samples, _ = soundfile.read(_twin_path(folder, utterance), dtype="float32")
    return replace(
        utterance,
        key=f"{TWIN_PREFIX}{checkpoint}:{utterance.key}",
        fake=True,
        system=f"hifigan-{checkpoint}",
        attack="vocoder-twin",
        samples=samples,
    )
