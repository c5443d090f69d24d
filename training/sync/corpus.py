"""Talking clips on the common clock, read as serving reads them and kept on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from services.audio.voice import VoiceAnalyzer
from services.common.errors import BonafideError
from services.common.evidence import MotionSequence, VoiceSequence
from services.common.models import ModelRepository
from services.common.settings import EngineChoice
from services.fusion.clock import align
from services.gateway.decoding import decode
from services.gateway.limits import DecodeLimits
from services.visual import detection, landmarks
from services.visual.pipeline import VisualPipeline
from services.visual.settings import VisualSettings
from training.cards import file_sha256
from training.data import Clip
from training.fusion.memo import MemoEngine
from training.served import TIMEOUT_SECONDS
from training.sync.data import SEGMENT, TalkingClip

UNKNOWN_LAG = ("RD_Radio51", "RD_Radio13", "RD_Radio18", "RD_Radio21", "RD_Radio8", "RD_Radio4")
"""Recordings whose sound is known to run ahead of the picture by a few slots."""
VERSION = 1
"""Raise it when what is kept changes."""


class Reader:
    """Reads lips and voice of clips with the services' own code.

    Args:
        models: the model repository, for the detector and the landmarker.
        cache: directory of what was read before.
        memory: what the networks answered before.
    """

    def __init__(self, models: Path, cache: Path, memory: Path) -> None:
        cv2.setNumThreads(1)
        repository = ModelRepository(models)
        settings = VisualSettings(model_repository=models, engine=EngineChoice.EMBEDDED)
        self._pipeline = VisualPipeline(MemoEngine(repository, memory), settings)
        self._voice = VoiceAnalyzer()
        hashes = [repository.card(name).sha256[:8] for name in (detection.MODEL, landmarks.MODEL)]
        self._state = "-".join((*hashes, str(VERSION)))
        self._cache = cache

    def read(self, clip: Clip) -> tuple[list[MotionSequence], VoiceSequence | None]:
        """Lip motion of each face, and the voice, if there is sound.

        Raises:
            BonafideError: the file is refused.
        """
        path = self._cache / f"{file_sha256(clip.path)[:20]}-{self._state}.npz"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part.npz")
            np.savez(part, **self._perceive(clip))  # type: ignore[arg-type]
            part.replace(path)
        with np.load(path) as kept:
            tracks = sorted(int(name.removeprefix("time")) for name in kept.files if name.startswith("time"))
            motions = [
                MotionSequence(track, tuple(kept[f"time{track}"].tolist()), kept[f"motion{track}"]) for track in tracks
            ]
            if "voice" not in kept.files:
                return motions, None
            start_us, step_us = (int(value) for value in kept["clock"])
            return motions, VoiceSequence(start_us, step_us, kept["voice"])

    def _perceive(self, clip: Clip) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
        with clip.path.open("rb") as stream:
            decoded = decode(stream, None, DecodeLimits(threads=1, max_seconds=TIMEOUT_SECONDS))
        watched = asyncio.run(self._pipeline.watch((), decoded.dense, timeout=TIMEOUT_SECONDS))
        found: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
        for track, seen in watched.by_track.items():
            if seen.motion is not None:
                found[f"time{track}"] = np.array(seen.motion.time_us, np.int64)
                found[f"motion{track}"] = seen.motion.values
        voice = self._voice.sequence(decoded.audio) if decoded.audio is not None else None
        if voice is not None:
            found["clock"] = np.array([voice.start_us, voice.step_us], np.int64)
            found["voice"] = voice.values
        return found


def talking_clips(clips: Sequence[Clip], reader: Reader) -> dict[str, list[TalkingClip]]:
    """Clips with lips and voice, by label (``real``, ``fake``, ``real_still_speech``).

    Args:
        clips: rows of the manifest.
        reader: reads or recalls what is seen and heard in them.
    """
    found: dict[str, list[TalkingClip]] = {}
    for clip in tqdm(clips, desc="lips and voices", unit="clip"):
        try:
            talking = talking_clip(clip, *reader.read(clip))
        except BonafideError as error:
            tqdm.write(f"left out {clip.example.file}: {error.message}")
            continue
        if talking is not None:
            found.setdefault(clip.example.label, []).append(talking)
    return found


def talking_clip(clip: Clip, motions: Sequence[MotionSequence], voice: VoiceSequence | None) -> TalkingClip | None:
    """The longest face of a clip with its voice, or None without two seconds of both."""
    if voice is None:
        return None
    pairs = [pair for pair in (align(motion, voice) for motion in motions) if pair is not None]
    pair = max(pairs, key=lambda one: len(one.motion), default=None)
    if pair is None or len(pair.motion) < SEGMENT:
        return None
    name = clip.example.file
    known = clip.example.label == "real" and not any(part in name for part in UNKNOWN_LAG)
    return TalkingClip(name, clip.example.group, pair.motion, pair.voice, known)
