"""What ``make observe`` sends: clips of our own making of three kinds, no two with the same bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2

from deploy.local.demo_clip import demo_clip, speech_synthesiser
from deploy.local.portrait import render_portrait

FREE_BOX = (8 + 16).to_bytes(4, "big") + b"free"
"""Head of a box that every MP4 reader skips; sixteen bytes follow."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of clip; ``box`` heads sixteen random bytes that make each copy unique."""

    name: str
    content: bytes
    box: bytes

    def copy(self) -> bytes:
        """The clip with bytes that were never sent before, so that it is worked out anew."""
        return self.content + self.box + os.urandom(16)


def kinds(directory: Path) -> list[Kind]:
    """A face that speaks, the same without a sound, and a still; made once and kept in ``directory``."""
    speaking, silent = demo_clip(directory, speech_synthesiser()), demo_clip(directory, None)
    _, picture = cv2.imencode(".png", cv2.cvtColor(next(render_portrait(0.1)), cv2.COLOR_RGB2BGR))
    return [
        Kind("speaking", speaking.read_bytes(), FREE_BOX),
        Kind("silent", silent.read_bytes(), FREE_BOX),
        Kind("still", picture.tobytes(), b""),
    ]
