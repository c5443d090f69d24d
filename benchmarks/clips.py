"""The clips that are measured: made here from a public-domain portrait, so anyone gets the same work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from deploy.local.portrait import render_portrait

RATE = 48_000


@dataclass(frozen=True, slots=True)
class ClipClass:
    """One kind of clip: picture size in pixels (0 for none), length in seconds, frames a second."""

    name: str
    width: int
    height: int
    seconds: float
    frames_per_second: int = 25
    sound: bool = True


CLASSES = (
    ClipClass("360p 10 s", 640, 360, 10),
    ClipClass("720p 10 s", 1280, 720, 10),
    ClipClass("1080p 10 s", 1920, 1080, 10),
    ClipClass("720p 60 s", 1280, 720, 60),
    ClipClass("sound only 10 s", 0, 0, 10),
)


def kept_clip(kind: ClipClass, directory: Path) -> Path:
    """The file of a class in a directory, made when it is not there yet."""
    path = directory / f"{kind.name.replace(' ', '-')}.mp4"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        make_clip(kind, unfinished)
        unfinished.rename(path)
    return path


def make_clip(kind: ClipClass, path: Path) -> None:
    """Encode one clip of a class as MP4 (H.264 at CRF 23, AAC at 128 kbit/s)."""
    with av.open(path, "w", format="mp4") as container:
        video = None
        if kind.width:
            video = container.add_stream("libx264", rate=kind.frames_per_second)
            video.width, video.height, video.pix_fmt = kind.width, kind.height, "yuv420p"
            video.options = {"crf": "23", "preset": "veryfast"}
        audio = container.add_stream("aac", rate=RATE, layout="mono") if kind.sound else None
        if video is not None:
            period = min(kind.seconds, 10)
            for picture in _pictures(kind, period):
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(video.encode())
        if audio is not None:
            for block in _speech_like(kind.seconds):
                container.mux(audio.encode(block))
            container.mux(audio.encode())


def _pictures(kind: ClipClass, period: float) -> Iterator[npt.NDArray[np.uint8]]:
    frames = list(render_portrait(seconds=period, fps=kind.frames_per_second, blink_times=(1.0, 4.0, 7.5)))
    side = int(kind.height * 0.9)
    canvas = np.random.default_rng(0).integers(90, 110, (kind.height, kind.width, 3), dtype=np.uint8)
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 3), np.uint8)
    top, left = (kind.height - side) // 2, (kind.width - side) // 2
    for index in range(round(kind.seconds * kind.frames_per_second)):
        picture = canvas.copy()
        picture[top : top + side, left : left + side] = cv2.resize(frames[index % len(frames)], (side, side))
        yield picture


def _speech_like(seconds: float) -> Iterator[av.AudioFrame]:
    """Syllables of a gliding pitch through changing formants: what the speech detector takes for a voice."""
    random = np.random.default_rng(0)
    sound = 0.001 * random.standard_normal(int(seconds * RATE))
    start = 0.2
    while start < seconds - 0.5:
        length = random.uniform(0.12, 0.3)
        syllable = 0.3 * _syllable(length, random)
        place = int(start * RATE)
        sound[place : place + len(syllable)] += syllable
        start += length + random.choice([0.02, 0.05, 0.25])
    for place in range(0, len(sound), 1024):
        samples = sound[None, place : place + 1024].astype(np.float32)
        block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = RATE, place, Fraction(1, RATE)
        yield block


def _syllable(length: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """One vowel, float64 [samples] within 1: harmonics of a pitch near 120 Hz, weighted by three formants."""
    time = np.arange(int(length * RATE)) / RATE
    pitch = random.uniform(100, 150) * (1 + 0.15 * np.sin(np.pi * time / length))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formants = (random.uniform(300, 800), random.uniform(900, 2200), random.uniform(2300, 3000))
    vowel = np.zeros_like(time)
    for harmonic in range(1, 30):
        gaps = (np.array(formants) - 120 * harmonic) / 120
        vowel += np.sin(harmonic * phase) * float(np.exp(-(gaps**2)) @ (1.0, 0.5, 0.25))
    return np.asarray(vowel / max(np.abs(vowel).max(), 1e-9) * np.sqrt(np.sin(np.pi * time / length).clip(0)))
