"""What happens to speech on its way to a platform: lossy codecs, band limits, noise, rooms.

Each channel is applied alike to both classes, so that it carries no label.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import av
import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfiltfilt

from services.common.media import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
Channel = Callable[[Samples, np.random.Generator], Samples]

LOW_PASS_ORDER = 8
NOISE_DECIBELS = (12.0, 28.0)
LATEST_START = 1152
"""Samples; at least a frame of every codec here, so that frames can fall anywhere on the speech."""
MOST_ATTENUATION = 12.0
"""Decibels."""
LOW_BIT_RATES = tuple(range(14_000, 23_000, 500))


@dataclass(frozen=True, slots=True)
class Codec:
    """A lossy codec: FFmpeg's encoder, a container it fits in, samples a second, and bits a second.

    The container should get by without timestamps, since packets carry none: MP4 refuses some lengths.
    """

    encoder: str
    container: str
    sample_rate: int
    bit_rate: int


def through_codec(samples: Samples, codec: Codec) -> Samples:
    """Encode and decode.

    Args:
        samples: float32 [n], 16 kHz mono.
        codec: what it goes through, resampled to the codec's rate and back.

    Returns:
        float32 [n], late by the codec's own delay; what is missing at the end is zero.
    """
    encoded = io.BytesIO()
    with av.open(encoded, "w", format=codec.container) as container:
        stream = container.add_stream(codec.encoder, rate=codec.sample_rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        stream.bit_rate = codec.bit_rate
        context = stream.codec_context
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        resampler = av.AudioResampler(context.format, "mono", codec.sample_rate, context.frame_size)
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


def with_some_noise(samples: Samples, rng: np.random.Generator) -> Samples:
    """Add white noise at a signal-to-noise ratio drawn from 12 to 28 dB."""
    return with_noise(samples, float(rng.uniform(*NOISE_DECIBELS)), rng)


def excerpt(samples: Samples, rng: np.random.Generator) -> Samples:
    """A stretch of 1 to 2 s, for windows in use hold more or less speech than an utterance here."""
    length = int(rng.uniform(1.0, 2.0) * SAMPLE_RATE)
    if samples.size <= length:
        return samples
    start = int(rng.integers(0, samples.size - length))
    return samples[start : start + length]


def through_some_aac(samples: Samples, rng: np.random.Generator) -> Samples:
    """AAC at 14 to 22.5 kbit/s, of sound that begins up to a frame later and is up to 12 dB quieter."""
    start = int(rng.integers(0, LATEST_START + 1))
    gain = 10.0 ** (-rng.uniform(0.0, MOST_ATTENUATION) / 20.0)
    bit_rate = int(rng.choice(LOW_BIT_RATES))
    return through_codec((gain * samples[start:]).astype(np.float32), Codec("aac", "adts", SAMPLE_RATE, bit_rate))


def _codec(encoder: str, container: str, sample_rate: int, bit_rate: int) -> Channel:
    codec = Codec(encoder, container, sample_rate, bit_rate)
    return lambda samples, _: through_codec(samples, codec)


DEGRADATIONS: Mapping[str, Channel] = MappingProxyType(
    {
        "mp3_32k": _codec("libmp3lame", "mp3", 16_000, 32_000),
        "mp3_16k": _codec("libmp3lame", "mp3", 16_000, 16_000),
        "aac_32k": _codec("aac", "adts", 16_000, 32_000),
        "aac_16k": _codec("aac", "adts", 16_000, 16_000),
        "opus_32k": _codec("libopus", "ogg", 48_000, 32_000),
        "opus_16k": _codec("libopus", "ogg", 48_000, 16_000),
        "low_pass_4k": lambda samples, _: low_passed(samples, 4000.0),
        "noise_20db": lambda samples, rng: with_noise(samples, 20.0, rng),
    }
)
"""The degraded conditions that the evaluation reports, beside clean sound."""

CLEAN = "clean"
EXCERPT = "excerpt"
SOUNDTRACKS: Mapping[str, Channel] = MappingProxyType({"aac_48khz_96k": _codec("aac", "adts", 48_000, 96_000)})
"""What an ordinary clip's sound has been through, beside the degraded conditions."""

NOISES: Mapping[str, Channel] = MappingProxyType({f"noise_{letter}": with_some_noise for letter in "abcd"})
"""More draws of noise. With one draw alone the expert partly learns that draw: on held-out sources two more take its
equal error rate at 20 dB from 35.2 to 33.8 %, and with prominence heard two further ones from 32.1 to 31.0 %."""

LOW_AACS: Mapping[str, Channel] = MappingProxyType({f"aac_low_{letter}": through_some_aac for letter in "ab"})
"""Draws of AAC whose frames and bit rates differ. What they gain, and that as many of MP3 gain nothing, is written in
docs/evaluation/audio-models.md."""

CHANNELS: Mapping[str, Channel | None] = MappingProxyType(
    {CLEAN: None, EXCERPT: excerpt, **SOUNDTRACKS, **DEGRADATIONS, **NOISES, **LOW_AACS}
)
"""Every channel that the model is trained on; None leaves the sound as it is."""


@dataclass(frozen=True, slots=True)
class Family:
    """Channels that share an expert, a say of the gate and a calibration.

    ``kin`` names families whose channels the expert learns from as well, each of them weighing as much as its own.
    """

    channels: tuple[str, ...]
    kin: tuple[str, ...] = ()


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "clean": Family((CLEAN, EXCERPT)),
        "soundtrack": Family(tuple(SOUNDTRACKS)),
        "mp3_high": Family(("mp3_32k",), kin=("mp3_low", "noisy")),
        "mp3_low": Family(("mp3_16k",), kin=("mp3_high", "noisy")),
        "aac_high": Family(("aac_32k",), kin=("aac_low", "noisy")),
        "aac_low": Family(("aac_16k", *LOW_AACS), kin=("aac_high", "noisy")),
        "opus": Family(("opus_32k", "opus_16k")),
        "band_limited": Family(("low_pass_4k",), kin=("opus",)),
        "noisy": Family(("noise_20db", *NOISES), kin=("opus", "clean")),
    }
)
"""Families by name. High and low bit rates need different calibrations; what the experts of lossy codecs need to hear
besides their own is noise, whose every draw hides other weak detail: see docs/evaluation/audio-models.md."""
