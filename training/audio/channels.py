"""What happens to speech on its way to a platform: lossy codecs, band limits, noise, rooms.

Each channel is applied alike to both classes, so that it carries no label.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType

import av
import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfiltfilt

from services.common.media import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
Channel = Callable[[Samples, np.random.Generator], Samples]

CONTAINERS = MappingProxyType({"libmp3lame": "mp3", "aac": "mp4", "libopus": "ogg"})
OPUS_RATE = 48_000
LOW_PASS_ORDER = 8


def through_codec(samples: Samples, codec: str, bit_rate: int) -> Samples:
    """Encode, decode, and align to the original's clock.

    Args:
        samples: float32 [n], 16 kHz mono.
        codec: FFmpeg's encoder: libmp3lame, aac or libopus.
        bit_rate: bits a second.

    Returns:
        float32 [n]; what the codec lost at the ends is zero.
    """
    encoded = io.BytesIO()
    with av.open(encoded, "w", format=CONTAINERS[codec]) as container:
        rate = OPUS_RATE if codec == "libopus" else SAMPLE_RATE
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(stream.codec_context.format, "mono", rate, stream.codec_context.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    encoded.seek(0)
    return _decode(encoded, samples.size)


def _decode(encoded: io.BytesIO, length: int) -> Samples:
    output = np.zeros(length, np.float32)
    with av.open(encoded, "r") as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        parts.extend(resampler.resample(None))
    decoded = np.concatenate([part.to_ndarray()[0] for part in parts])[:length]
    output[: decoded.size] = decoded
    return output


def low_passed(samples: Samples, hertz: float) -> Samples:
    """Butterworth low-pass without delay."""
    sections = butter(LOW_PASS_ORDER, hertz, fs=SAMPLE_RATE, output="sos")
    return np.asarray(sosfiltfilt(sections, samples), np.float32)


def with_noise(samples: Samples, decibels: float, rng: np.random.Generator) -> Samples:
    """Add white noise at a signal-to-noise ratio over the whole utterance."""
    scale = np.sqrt(np.mean(samples.astype(np.float64) ** 2)) * 10.0 ** (-decibels / 20.0)
    return (samples + scale * rng.standard_normal(samples.size)).astype(np.float32)


def _codec(codec: str, bit_rate: int) -> Channel:
    return lambda samples, _: through_codec(samples, codec, bit_rate)


DEGRADATIONS: Mapping[str, Channel] = MappingProxyType(
    {
        "mp3_32k": _codec("libmp3lame", 32_000),
        "mp3_16k": _codec("libmp3lame", 16_000),
        "aac_32k": _codec("aac", 32_000),
        "aac_16k": _codec("aac", 16_000),
        "opus_32k": _codec("libopus", 32_000),
        "opus_16k": _codec("libopus", 16_000),
        "low_pass_4k": lambda samples, _: low_passed(samples, 4000.0),
        "noise_20db": lambda samples, rng: with_noise(samples, 20.0, rng),
    }
)
"""The degraded conditions that the evaluation reports, beside clean sound."""
