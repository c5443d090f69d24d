"""Rows of every clip and of its forgeries, read as serving reads them and kept on disk.

Real and fake clips alike are also read after a second compression at random strength and size, so that how
strongly a source compresses tells nothing; forgeries are only ever read so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.common.inference import EmbeddedEngine
from services.common.media import Frame
from services.common.models import ModelRepository
from services.common.settings import EngineChoice
from services.gateway.decoding import DecodedClip, decode
from services.gateway.limits import DecodeLimits
from services.visual.pipeline import VisualPipeline
from services.visual.residuals import texture_runs
from services.visual.settings import VisualSettings
from services.visual.temporal import FEWEST_MESHES, FEWEST_ROWS, FaceSequence, measure
from training.cards import file_sha256
from training.data import Clip, Example
from training.forging import generator
from training.served import MODEL_REPOSITORY, TIMEOUT_SECONDS
from training.temporal.face_forgery import RECIPES, Stretch
from training.video_codec import through_video_codec

Floats = npt.NDArray[np.float32]
VERSION = 1
"""Raise it when rows or recipes change: kept rows of other versions are left alone."""
COPIES = 2
"""Recompressed copies of each clip."""
STRETCH = 48
"""Frames of a copy or a forgery."""
ORIGINAL = "original"
COPY, FORGED = "copy", "forged"
GENUINE, FAKE = "real", "fake"
_log = logging.getLogger("training.temporal")


@dataclass(frozen=True, slots=True)
class ClipRows:
    """What is known of one clip.

    ``motion`` is float32 [frames, 17]; ``texture`` holds float32 [rows, 123] under ``original``, ``copy/0`` …,
    and for real clips ``forged/<recipe>``. ``source`` is the repository that the clip was published in.
    ``embeddings`` float32 [crops, d] and ``frame_logit`` are what the frame classifier makes of its face, where
    they were asked for (``training.temporal.embeddings``).
    """

    name: str
    fake: int
    group: str
    source: str
    method: str
    motion: Floats
    texture: dict[str, Floats]
    embeddings: Floats | None = None
    frame_logit: float = 0.0


def is_forged(variant: str) -> bool:
    """Whether rows are of a forgery."""
    return variant.startswith(FORGED)


def read_corpus(clips: Sequence[Clip], cache: Path, seed: int) -> tuple[ClipRows, ...]:
    """Rows of the real and the generated clips; clips in which no face can be followed are left out.

    Args:
        clips: rows of the manifest.
        cache: directory of what was read before, by the file's hash.
        seed: of copies and forgeries.
    """
    cache.mkdir(parents=True, exist_ok=True)
    reader = _Reader(seed)
    wanted = [clip for clip in clips if clip.example.label in (GENUINE, FAKE)]
    # First what serving sees of every clip, then the copies: an early stop leaves something to learn from.
    for clip in wanted:
        keep(cache_path(clip, cache, "seen"), partial(reader.see, clip))
    for clip in wanted:
        keep(cache_path(clip, cache, f"variants-{seed}"), partial(reader.vary, clip, cache_path(clip, cache, "seen")))
    found = []
    for clip in wanted:
        seen, variants = load(cache_path(clip, cache, "seen")), load(cache_path(clip, cache, f"variants-{seed}"))
        if seen:
            texture = {ORIGINAL: seen["texture"]} | variants
            found.append(_clip_rows(clip.example, seen["motion"], texture))
    return tuple(found)


def cache_path(clip: Clip, cache: Path, what: str) -> Path:
    """Where something that was read from a clip is kept."""
    return cache / f"{file_sha256(clip.path)[:20]}-{VERSION}-{what}.npz"


def load(path: Path) -> dict[str, Floats]:
    """Arrays of a kept file."""
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def keep(path: Path, make: Callable[[], Mapping[str, npt.NDArray[np.generic]]]) -> None:
    """Make and write a file unless it is there; never half of it."""
    if not path.is_file():
        _log.info("reading %s", path.stem)
        part = path.with_suffix(".part.npz")
        np.savez(part, **make())  # type: ignore[arg-type]
        part.replace(path)


def _clip_rows(example: Example, motion: Floats, texture: dict[str, Floats]) -> ClipRows:
    source = example.fields.get("source", "").split(":")[0] or example.group
    return ClipRows(
        example.file, example.fake, example.group, source, example.fields.get("method", ""), motion, texture
    )


class _Reader:
    def __init__(self, seed: int) -> None:
        settings = VisualSettings(model_repository=MODEL_REPOSITORY, engine=EngineChoice.EMBEDDED)
        self._pipeline = VisualPipeline(EmbeddedEngine(ModelRepository(MODEL_REPOSITORY)), settings)
        self._seed = seed
        cv2.setNumThreads(1)

    def see(self, clip: Clip) -> dict[str, Floats]:
        """Rows of a clip as serving reads them, and where the face is; empty when none can be followed."""
        pictured = decoded(clip)
        # Faces of the dense window are found in the dense window; the survey would only cost time.
        watched = asyncio.run(self._pipeline.watch((), pictured.dense, timeout=TIMEOUT_SECONDS))
        if not watched.by_track:
            return {}
        track_id = min(watched.by_track)
        face = FaceSequence(track_id, watched.by_track[track_id].meshes)
        pictures, times = [frame.pixels for frame in pictured.dense], [frame.time_us for frame in pictured.dense]
        measured = measure(pictures, face, times)
        if measured is None:
            return {}
        meshes = {index: mesh.landmarks[:, :2] for index, mesh in sorted(face.meshes.items()) if mesh.trusted}
        return {
            "motion": measured[0].motion,
            "texture": measured[0].texture,
            "indices": np.array(list(meshes), np.float32),
            "landmarks": np.stack(list(meshes.values())),
        }

    def vary(self, clip: Clip, seen: Path) -> dict[str, Floats]:
        """Texture rows of a clip's copies and, if it is real, of its forgeries."""
        face = load(seen)
        if not face:
            return {}
        pictures = [frame.pixels for frame in decoded(clip).dense]
        meshes = {int(index): points for index, points in zip(face["indices"], face["landmarks"], strict=True)}
        variants = [f"{COPY}/{number}" for number in range(COPIES)]
        if not clip.example.fake:
            variants += [f"{FORGED}/{recipe}" for recipe in RECIPES]
        rows: dict[str, Floats] = {}
        for variant in variants:
            self._add(rows, variant, clip.example.file, pictures, meshes)
        return rows

    def _add(
        self,
        rows: dict[str, Floats],
        variant: str,
        name: str,
        pictures: Sequence[npt.NDArray[np.uint8]],
        meshes: dict[int, Floats],
    ) -> None:
        random = generator(name, variant, self._seed)
        stretch = _draw_stretch(pictures, meshes, random)
        if stretch is None:
            return
        frames = [*stretch.pictures]
        if is_forged(variant):
            frames = RECIPES[variant.partition("/")[2]](stretch, random)
        frames, scale = _recompress(frames, random)
        texture = _texture(frames, dict(enumerate(stretch.landmarks * scale)))
        if len(texture) >= FEWEST_ROWS:
            rows[variant] = texture


def decoded(clip: Clip) -> DecodedClip:
    """A clip as the gateway decodes it."""
    with clip.path.open("rb") as stream:
        return decode(stream, limits=DecodeLimits(threads=1, max_seconds=TIMEOUT_SECONDS))


def _texture(pictures: Sequence[npt.NDArray[np.uint8]], meshes: dict[int, Floats]) -> Floats:
    runs = texture_runs(pictures, meshes)
    return np.concatenate([run.rows for run in runs]) if runs else np.empty((0, 0), np.float32)


def _draw_stretch(
    pictures: Sequence[npt.NDArray[np.uint8]], meshes: dict[int, Floats], random: np.random.Generator
) -> Stretch | None:
    """Frames in a row that all have a mesh, at most STRETCH."""
    indices = np.array(sorted(meshes))
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    longest = max(runs, key=len)
    if len(longest) < FEWEST_MESHES:
        return None
    start = int(random.integers(max(len(longest) - STRETCH, 0) + 1))
    chosen = longest[start : start + STRETCH]
    landmarks = np.stack([meshes[int(index)][:, :2] for index in chosen]).astype(np.float32)
    return Stretch([pictures[int(index)] for index in chosen], landmarks)


def _recompress(
    pictures: Sequence[npt.NDArray[np.uint8]], random: np.random.Generator
) -> tuple[list[npt.NDArray[np.uint8]], Floats]:
    """Scale by up to 0.6 half of the time, encode at a random strength and decode; the scale is float32 [2]."""
    height, width = pictures[0].shape[:2]
    factor = float(random.uniform(0.6, 1.0)) if random.random() < 0.5 else 1.0
    size = int(width * factor) // 2 * 2, int(height * factor) // 2 * 2
    scale = np.array([size[0] / width, size[1] / height], np.float32) if factor < 1 else np.ones(2, np.float32)
    method = int(random.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
    if factor < 1:
        scaled = [np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8) for picture in pictures]
    else:
        scaled = [*pictures]
    frames = [Frame(index, picture) for index, picture in enumerate(scaled)]
    coded = through_video_codec(frames, int(random.integers(17, 35)))
    return [frame.pixels for frame in coded], scale
