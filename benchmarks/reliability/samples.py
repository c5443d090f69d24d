"""Small clips of every kind, each request's bytes made unique, and what the quiet system says of them."""

from __future__ import annotations

import hashlib
import io
import json
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT = 192, 160
FACE = slice(64, 128)
RATE = 25
SOUND_RATE = 16_000
Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip: its name, its bytes, and how a nonce is appended so that no two requests send the same bytes."""

    name: str
    body: bytes
    box: bytes

    def trailer(self, nonce: bytes) -> bytes:
        """Bytes to follow the body: a comment that every decoder skips.

        Args:
            nonce: 16 bytes.
        """
        return self.box + nonce

    def sha256(self, nonce: bytes) -> str:
        """Content hash of the whole, lower-case hex."""
        return hashlib.sha256(self.body + self.trailer(nonce)).hexdigest()


MP4_FREE = (8 + 16).to_bytes(4, "big") + b"free"
WAV_CHUNK = b"JUNK" + (16).to_bytes(4, "little")
MATROSKA_VOID = b"\xec\x90"


def make_samples() -> list[Sample]:
    """The mix: face with voice, face alone in two containers, stills with and without a face, voice alone."""
    random = np.random.default_rng(0)
    return [
        Sample("face and voice", _video(56, speech_like(2.3, seed=1), seed=1), MP4_FREE),
        Sample("silent face", _video(15, None, seed=2), MP4_FREE),
        Sample("bright face", _still(_picture(0, 40)), b""),
        Sample("dark face", _still(_picture(0, -30)), b""),
        Sample("no face", _still(random.integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)), b""),
        Sample("voice", _wave(speech_like(1.6, seed=3)), WAV_CHUNK),
        Sample("silent matroska", _video(10, None, seed=4, container="matroska"), MATROSKA_VOID),
    ]


def _picture(index: int, light: int = 0) -> Pixels:
    """A grey ground with a red block, whose brightness changes from frame to frame."""
    picture = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    picture[: HEIGHT // 8] = 40 + (index * 9) % 120
    red = 170 + light + round(20 * np.sin(index / 3))
    picture[FACE, FACE] = (red, 30, 30)
    picture[FACE.start + 20 : FACE.start + 26, FACE] = (red - 60, 20, 20)
    return picture


def _video(frames: int, sound: Samples | None, *, seed: int, container: str = "mp4") -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as file:
        video = file.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "12"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = file.add_stream("aac", rate=SOUND_RATE, layout="mono") if sound is not None else None
        for index in range(frames):
            file.mux(video.encode(av.VideoFrame.from_ndarray(_picture(index + seed), format="rgb24")))
        file.mux(video.encode())
        if audio is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
                file.mux(audio.encode(block))
            file.mux(audio.encode())
    return sink.getvalue()


def _still(pixels: Pixels) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=92)
    return sink.getvalue()


def _wave(sound: Samples) -> bytes:
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    return sink.getvalue()


def speech_like(seconds: float, *, seed: int) -> Samples:
    """Syllables of a gliding pitch through changing formants, which the speech detector takes for a voice."""
    random = np.random.default_rng(seed)
    sound = 0.001 * random.standard_normal(round(seconds * SOUND_RATE))
    start = 0.05
    while start < seconds - 0.25:
        length = random.uniform(0.12, 0.2)
        syllable = _syllable(length, random)
        place = int(start * SOUND_RATE)
        sound[place : place + len(syllable)] += 0.3 * syllable
        start += length + 0.02
    return sound.astype(np.float32)


def _syllable(length: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
    clock = np.arange(int(length * SOUND_RATE)) / SOUND_RATE
    pitch = 120 * (1 + 0.15 * np.sin(2 * np.pi * 2 * clock + random.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / SOUND_RATE
    formants = [(random.uniform(350, 850), 90), (random.uniform(1000, 2200), 120), (2600, 160)]
    voice = np.zeros_like(clock)
    for harmonic in range(1, 30):
        gain = sum(1 / (1 + ((harmonic * 120 - centre) / width) ** 2) for centre, width in formants)
        voice += gain * np.sin(harmonic * phase)
    return np.asarray(voice / np.abs(voice).max() * np.hanning(len(clock)), np.float64)


def write_samples(samples: Sequence[Sample], directory: Path) -> None:
    """Keep samples on disk, for processes that send them."""
    directory.mkdir(parents=True, exist_ok=True)
    index = []
    for number, sample in enumerate(samples):
        (directory / f"{number}.bin").write_bytes(sample.body)
        index.append({"name": sample.name, "file": f"{number}.bin", "box": sample.box.hex()})
    (directory / "index.json").write_text(json.dumps(index), encoding="utf-8")


def read_samples(directory: Path) -> list[Sample]:
    """The reverse of ``write_samples``."""
    index = json.loads((directory / "index.json").read_text(encoding="utf-8"))
    return [
        Sample(entry["name"], (directory / entry["file"]).read_bytes(), bytes.fromhex(entry["box"])) for entry in index
    ]
