"""Forgeries and degradations of clips for fitting the heads, beside those of ``training.forging``.

Everything follows from names and a seed. Pictures are changed in the gateway's own decoded frames or, where
a codec is meant, in a file that is written once and decoded by the gateway like any other.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import resample_poly

from services.common.media import SAMPLE_RATE, Frame
from services.visual.detection import detect_now
from services.visual.landmarks import FaceView, model_inputs, read_meshes
from training.forging import generator
from training.frame.blending import Face, self_blend
from training.fusion.memo import MemoEngine

SENTENCES = (
    "The committee will meet again on Thursday to discuss the new budget and the road works.",
    "I have always believed that we can do better, and today I want to tell you how.",
    "Please remember to bring your documents, because the office closes early this week.",
    "When the weather is fine, we walk along the river and talk about old times.",
    "There is no reason to worry; everything has been arranged for tomorrow morning.",
    "Our results show a steady increase over the last ten years in every region.",
)
ESPEAK_VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-us+f3", "en-gb+m7", "de", "fr", "es")
FLITE_VOICES = ("slt", "rms", "awb", "kal16")
LARGEST_SIDE = 480
CRF_RANGE = (27, 37)


def synthetic_speech(name: str, seconds: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Speech by an installed synthesiser, drawn by name and seed: float32 [time], 16 kHz.

    Args:
        name: of the clip that it will be laid under.
        seconds: least length; sentences are added until it is reached.
        seed: another seed gives other voices and sentences.

    Raises:
        FileNotFoundError: eSpeak NG or Flite are not installed.
    """
    random = generator("speech", name, seed)
    use_espeak = random.random() < 0.6
    voice = str(random.choice(ESPEAK_VOICES if use_espeak else FLITE_VOICES))
    speed, pitch = int(random.integers(130, 190)), int(random.integers(30, 70))
    order = random.permutation(len(SENTENCES))
    parts: list[npt.NDArray[np.float32]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        espeak = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(path)]
        while sum(part.size for part in parts) < seconds * SAMPLE_RATE:
            text = SENTENCES[order[len(parts) % len(order)]]
            command = [*espeak, text] if use_espeak else ["flite", "-voice", voice, "-t", text, "-o", str(path)]
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed programs and texts
            values, rate = soundfile.read(path, dtype="float32")
            ratio = Fraction(SAMPLE_RATE, rate)
            parts.append(resample_poly(values, ratio.numerator, ratio.denominator).astype(np.float32))
    return np.concatenate(parts)


def self_blended(
    frames: Sequence[Frame], engine: MemoEngine, name: str, strength: float, seed: int = 0
) -> tuple[Frame, ...]:
    """Frames whose largest face is blended with a changed copy of itself, the same way in all of them.

    Args:
        frames: decoded pictures.
        engine: runs the detector and the landmarker.
        name: of the clip; with the seed it fixes every choice.
        strength: share of the forgery in the blend, (0, 1].
        seed: another seed gives another forgery.
    """
    blended = []
    for frame, faces in zip(frames, detect_now(engine.run, [frame.pixels for frame in frames]), strict=True):
        if not len(faces):
            blended.append(frame)
            continue
        largest = int(np.argmax(np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)))
        view = FaceView(frame.pixels, faces.boxes[largest], faces.points[largest])
        mesh = read_meshes([view], engine.run("face_landmarker", model_inputs([view])))[0]
        pixels = _blend_region(frame.pixels, mesh.landmarks[:, :2], generator("blend", name, seed), strength)
        blended.append(replace(frame, pixels=pixels))
    return tuple(blended)


def _blend_region(
    pixels: npt.NDArray[np.uint8], points: npt.NDArray[np.float32], random: np.random.Generator, strength: float
) -> npt.NDArray[np.uint8]:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.3 * (high - low).max()
    height, width = pixels.shape[:2]
    x0, y0 = (int(value) for value in np.clip(low - margin, 0, (width - 2, height - 2)))
    x1, y1 = (int(value) for value in np.clip(high + margin, (x0 + 2, y0 + 2), (width, height)))
    region = np.ascontiguousarray(pixels[y0:y1, x0:x1])
    _, forged = self_blend(Face(region, (points - (x0, y0)).astype(np.float32)), random)
    mixed = region.astype(np.float32) * (1 - strength) + forged.astype(np.float32) * strength
    result = pixels.copy()
    result[y0:y1, x0:x1] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
    return result


def recompressed(path: Path, name: str, seed: int = 0) -> bytes:
    """The clip as a platform would pass it on: smaller, H.264 at a coarse quantiser, low-rate AAC; MP4 bytes."""
    random = generator("codec", name, seed)
    crf = int(random.integers(*CRF_RANGE))
    side = int(random.integers(320, LARGEST_SIDE + 1))
    target = io.BytesIO()
    with av.open(str(path)) as source, av.open(target, "w", format="mp4") as sink:
        video, sound = source.streams.video[0], next(iter(source.streams.audio), None)
        scale = min(1.0, side / max(video.width, video.height))
        rate = video.average_rate or Fraction(25)
        out = sink.add_stream("libx264", rate=rate.limit_denominator(1001))
        out.width, out.height = (max(int(value * scale) // 2 * 2, 2) for value in (video.width, video.height))
        out.pix_fmt, out.options = "yuv420p", {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        out.time_base = video.time_base
        voice = sink.add_stream("aac", rate=sound.rate) if sound is not None else None
        if voice is not None:
            voice.bit_rate = int(random.choice((32_000, 48_000, 64_000)))
        for packet in source.demux([stream for stream in (video, sound) if stream is not None]):
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    small = frame.reformat(out.width, out.height, "yuv420p", interpolation="AREA")
                    small.pts, small.time_base = frame.pts, frame.time_base
                    small.pict_type = av.video.frame.PictureType.NONE
                    sink.mux(out.encode(small))
                elif isinstance(frame, av.AudioFrame) and voice is not None:
                    sink.mux(voice.encode(frame))
        sink.mux(out.encode(None))
        if voice is not None:
            sink.mux(voice.encode(None))
    return target.getvalue()
