"""The demo's clip: a public-domain portrait that blinks and moves its lips to synthetic speech.

Everything in it is artificial by construction: the motion is drawn and the voice is a formant synthesiser.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from deploy.local import portrait

TEXT = (
    "Good morning. I never said any of this. A computer drew my lips, and another computer is speaking."
    " Please listen carefully, look at my eyes, and then decide for yourself."
)
BLINK_TIMES = (0.9, 3.1, 4.6, 6.8, 9.0, 11.1)
SILENT_SECONDS = 8.0
FRAME_RATE = 25
_SYNTHESISERS = {
    "espeak-ng": ["espeak-ng", "-s", "150", "-w", "{wav}", "{text}"],
    "espeak": ["espeak", "-s", "150", "-w", "{wav}", "{text}"],
    "flite": ["flite", "-t", "{text}", "-o", "{wav}"],
    "text2wave": ["text2wave", "-o", "{wav}"],  # festival's; reads the text from its input
}


@dataclass(frozen=True, slots=True)
class Speech:
    """Mono sound: ``samples`` is float32 [n] in [-1, 1] at ``rate`` samples a second."""

    rate: int
    samples: npt.NDArray[np.float32]

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.rate

    def loudness(self, frame_rate: int) -> npt.NDArray[np.float32]:
        """How loud each frame's stretch is, float32 [frames] in [0, 1], 1 for the loudest syllables."""
        length = self.rate // frame_rate
        frames = self.samples[: len(self.samples) // length * length].reshape(-1, length)
        energy = np.sqrt(np.mean(frames**2, axis=1))
        scaled = np.clip(energy / max(float(np.percentile(energy, 95)), 1e-6), 0, 1)
        return np.asarray(scaled, dtype=np.float32)


def speech_synthesiser() -> str | None:
    """Name of an installed speech synthesiser, or None."""
    return next((name for name in _SYNTHESISERS if shutil.which(name)), None)


def synthesise(synthesiser: str, text: str) -> Speech:
    """Speak a text.

    Raises:
        subprocess.CalledProcessError: the synthesiser failed.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "speech.wav"
        command = [word.format(wav=file, text=text) for word in _SYNTHESISERS[synthesiser]]
        subprocess.run(command, input=text.encode(), check=True, capture_output=True)  # noqa: S603 - one of the commands above
        return _read_wav(file.read_bytes())


def demo_clip(directory: Path, synthesiser: str | None) -> Path:
    """The demo clip, made on first use and kept in ``directory``."""
    sources = (Path(__file__), Path(portrait.__file__))
    made_by = b"".join(source.read_bytes() for source in sources) + (synthesiser or "silent").encode()
    clip = directory / f"demo-{hashlib.sha256(made_by).hexdigest()[:12]}.mp4"
    if not clip.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        draft = clip.with_suffix(".draft.mp4")
        write_clip(draft, synthesise(synthesiser, TEXT) if synthesiser else None)
        draft.rename(clip)
    return clip


def write_clip(file: Path, speech: Speech | None) -> None:
    """Write H.264, and AAC when there is speech, into an MP4 file."""
    seconds = speech.seconds if speech else SILENT_SECONDS
    loudness = speech.loudness(FRAME_RATE) if speech else np.zeros(1, np.float32)
    with av.open(file, "w") as container:
        picture = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "18", "preset": "veryfast"})
        picture.width, picture.height, picture.pix_fmt = 640, 360, "yuv420p"
        sound = container.add_stream("aac", rate=speech.rate, layout="mono") if speech else None
        frames = portrait.render_portrait(
            seconds,
            FRAME_RATE,
            BLINK_TIMES,
            mouth=lambda time: float(loudness[min(round(time * FRAME_RATE), len(loudness) - 1)]),
        )
        for pixels in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(picture.encode())
        if speech is not None and sound is not None:
            frame = av.AudioFrame.from_ndarray(speech.samples[None, :], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = speech.rate, 0, Fraction(1, speech.rate)
            container.mux(sound.encode(frame))
            container.mux(sound.encode())


def _read_wav(content: bytes) -> Speech:
    with wave.open(io.BytesIO(content)) as file:
        rate = file.getframerate()
        # A synthesiser that streams leaves a false length in the header: read what is there.
        raw = file.readframes(file.getnframes())
    return Speech(rate, np.frombuffer(raw, "<i2").astype(np.float32) / 32768.0)
