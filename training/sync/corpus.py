"""Talking clips on the common clock, from the evidence of the served pipelines."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from services.common.errors import BonafideError
from services.fusion.clock import align
from services.fusion.pipeline import FusionInput
from training.data import Clip
from training.fusion.corpus import Evidence, Part
from training.sync.data import SEGMENT, TalkingClip

UNKNOWN_LAG = ("RD_Radio51", "RD_Radio13", "RD_Radio18", "RD_Radio21", "RD_Radio8", "RD_Radio4")
"""Recordings whose sound is known to run ahead of the picture by a few slots."""


def talking_clips(clips: Sequence[Clip], evidence: Evidence) -> dict[str, list[TalkingClip]]:
    """Clips with lips and voice, by label (``real``, ``fake``, ``real_still_speech``).

    Args:
        clips: rows of the manifest.
        evidence: computes or recalls what the pipelines say of them.
    """
    found: dict[str, list[TalkingClip]] = {}
    for clip in tqdm(clips, desc="lips and voices", unit="clip"):
        try:
            pictures = evidence.pictures(clip, Part.PLAIN)
            talking = talking_clip(clip, pictures, evidence.sound(clip, Part.PLAIN))
        except BonafideError as error:
            tqdm.write(f"left out {clip.example.file}: {error.message}")
            continue
        if talking is not None:
            found.setdefault(clip.example.label, []).append(talking)
    return found


def talking_clip(clip: Clip, pictures: FusionInput, sound: FusionInput) -> TalkingClip | None:
    """The longest face of a clip with its voice, or None without two seconds of both."""
    if sound.voice is None:
        return None
    pairs = [pair for pair in (align(motion, sound.voice) for motion in pictures.motions) if pair is not None]
    pair = max(pairs, key=lambda one: len(one.motion), default=None)
    if pair is None or len(pair.motion) < SEGMENT:
        return None
    name = clip.example.file
    known = clip.example.label == "real" and not any(part in name for part in UNKNOWN_LAG)
    return TalkingClip(name, clip.example.group, pair.motion, pair.voice, known)
