"""One 25 Hz clock for lips and voice, the same at training and at serving.

Time runs in slots of 40 ms. Slot ``i`` of a pair is centred ``i`` slots after the pair's start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.common.evidence import MotionSequence, VoiceSequence

SLOT_US = 40_000
"""Length of a slot of the common clock, microseconds (25 Hz)."""
VOICE_ROWS = 4
"""Voice rows taken for each slot, evenly spread over it."""
LONGEST_GAP_US = 200_000
"""A longer pause between motion rows ends a run; shorter ones are interpolated."""
FEWEST_SLOTS = 2
"""A shorter run has no motion."""
SILENCE = float(np.log(1e-8))
"""Log-mel value of what lies outside the sound."""


@dataclass(frozen=True, slots=True)
class AlignedPair:
    """Lips and voice of one track on the common clock.

    ``motion`` is float32 [slots, width]; ``voice`` is float32 [slots, VOICE_ROWS * bands]; ``start_us`` is
    the centre of the first slot.
    """

    track_id: int
    start_us: int
    motion: npt.NDArray[np.float32]
    voice: npt.NDArray[np.float32]


def align(motion: MotionSequence, voice: VoiceSequence) -> AlignedPair | None:
    """Bring one track's lips and the voice onto the common clock.

    The longest run of motion rows without a gap over 0.2 s is interpolated linearly; voice rows are the
    nearest ones, and silence outside the sound.

    Returns:
        The pair over the whole run, or None when the run is shorter than two slots or does not touch the
        sound.
    """
    times, values = _longest_run(np.asarray(motion.time_us, dtype=np.int64), motion.values)
    if times.size < FEWEST_SLOTS or not voice.values.size:
        return None
    slots = int((times[-1] - times[0]) // SLOT_US) + 1
    centres = times[0] + SLOT_US * np.arange(slots, dtype=np.int64)
    voice_end = voice.start_us + voice.step_us * voice.values.shape[0]
    if slots < FEWEST_SLOTS or centres[0] >= voice_end or centres[-1] <= voice.start_us:
        return None
    return AlignedPair(
        track_id=motion.track_id,
        start_us=int(times[0]),
        motion=_interpolated(times, values, centres),
        voice=voice_slots(voice, centres),
    )


def voice_slots(voice: VoiceSequence, centres: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Voice rows around the centres of slots.

    Args:
        voice: log-mel rows at a steady rate.
        centres: int64 [slots], microseconds.

    Returns:
        float32 [slots, VOICE_ROWS * bands], the rows of a slot one after the other.
    """
    spread = (np.arange(VOICE_ROWS) - (VOICE_ROWS - 1) / 2) * (SLOT_US / VOICE_ROWS)
    wanted = centres[:, None] + spread[None, :]
    index = np.floor((wanted - voice.start_us) / voice.step_us + 0.5).astype(np.int64)
    inside = (index >= 0) & (index < voice.values.shape[0])
    rows = voice.values[np.clip(index, 0, voice.values.shape[0] - 1)]
    rows = np.where(inside[:, :, None], rows, np.float32(SILENCE))
    return np.ascontiguousarray(rows.reshape(centres.size, -1), dtype=np.float32)


def _longest_run(
    times: npt.NDArray[np.int64], values: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    if not times.size:
        return times, values
    breaks = np.flatnonzero(np.diff(times) > LONGEST_GAP_US) + 1
    edges = np.concatenate(([0], breaks, [times.size]))
    lengths = times[edges[1:] - 1] - times[edges[:-1]]
    best = int(np.argmax(lengths))
    return times[edges[best] : edges[best + 1]], values[edges[best] : edges[best + 1]]


def _interpolated(
    times: npt.NDArray[np.int64], values: npt.NDArray[np.float32], centres: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    right = np.clip(np.searchsorted(times, centres, side="left"), 1, times.size - 1)
    span = (times[right] - times[right - 1]).astype(np.float64)
    share = np.clip((centres - times[right - 1]) / np.maximum(span, 1.0), 0.0, 1.0)[:, None]
    return np.asarray(values[right - 1] * (1.0 - share) + values[right] * share, dtype=np.float32)
