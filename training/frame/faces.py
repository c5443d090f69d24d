"""Faces of a still set as the services see them: the detector's box and the mesh, found once and kept.

Boxes come from the served detector through the services' own code, so that crops at training are the crops
of serving. Where it finds no face, which serving would refuse, the whole picture counts as the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from services.visual.crops import FACE_MARGIN, square_crop
from services.visual.detection import detect_now
from training.data import Example, ZipSet

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
LANDMARK_MARGIN = 1.5
LANDMARK_CROP = 256


@dataclass(frozen=True, slots=True)
class FaceSet:
    """A still set in memory: the encoded pictures and one face of each.

    ``boxes`` is float32 [n, 4] (left, top, right, bottom, pixels of the picture), ``landmarks`` float32
    [n, 478, 2] in pixels, ``presence`` float32 [n] the mesh's logit (real faces only), ``detected`` bool [n].
    """

    name: str
    examples: tuple[Example, ...]
    encoded: tuple[bytes, ...]
    boxes: Floats
    landmarks: Floats
    presence: Floats
    detected: npt.NDArray[np.bool_]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """1 = fake, 0 = real: int64 [n]."""
        return np.array([example.fake for example in self.examples], dtype=np.int64)

    @property
    def groups(self) -> list[str]:
        """What splits and bootstrap draws keep whole."""
        return [example.group for example in self.examples]

    def picture(self, index: int) -> Pixels:
        """One picture, uint8 [height, width, 3] RGB."""
        return decode(self.encoded[index])

    def crop(self, index: int) -> Pixels:
        """One face as serving cuts it: uint8 [224, 224, 3] RGB."""
        return square_crop(self.picture(index), self.boxes[index])


def decode(encoded: bytes) -> Pixels:
    """Decode a picture to uint8 [height, width, 3] RGB."""
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(np.asarray(pixels)[:, :, ::-1], dtype=np.uint8)


def load_faces(source: ZipSet, models: Path, cache: Path) -> FaceSet:
    """Read a set and find its faces, or take them from the cache if rows and networks are the same.

    Args:
        source: a set of stills.
        models: the model repository, for the detector and the mesh.
        cache: directory for what was found.
    """
    engine, repository = EmbeddedEngine(ModelRepository(models)), ModelRepository(models)
    state = ":".join(repository.card(name).sha256[:16] for name in ("face_detector", "face_landmarker"))
    encoded = tuple(source.read(example) for example in source.examples)
    path = cache / f"{source.name}.npz"
    if path.is_file():
        with np.load(path) as kept:
            if str(kept["state"]) == state and len(kept["boxes"]) == len(encoded):
                found = (kept["boxes"], kept["landmarks"], kept["presence"], kept["detected"])
                return FaceSet(source.name, source.examples, encoded, *found)
    found = find_faces(engine, encoded, source.examples)
    cache.mkdir(parents=True, exist_ok=True)
    names = ("boxes", "landmarks", "presence", "detected")
    np.savez(path, state=np.array(state), **dict(zip(names, found, strict=True)))  # type: ignore[arg-type]
    return FaceSet(source.name, source.examples, encoded, *found)


def find_faces(
    engine: EmbeddedEngine, encoded: Sequence[bytes], examples: Sequence[Example]
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """Boxes, landmarks, presence and whether the detector found each: see FaceSet.

    Only real faces get a mesh, since only they are blended; the others have zeros and presence -inf.
    """
    boxes, landmarks, presence, detected = [], [], [], []
    for data, example in zip(encoded, examples, strict=True):
        picture = decode(data)
        faces = detect_now(engine.run, [picture])[0]
        detected.append(len(faces) > 0)
        box = _largest(faces.boxes) if len(faces) else whole_picture(picture)
        points, logit = (np.zeros((478, 2)), -np.inf) if example.fake else _mesh(engine, picture, box)
        boxes.append(box)
        landmarks.append(points)
        presence.append(logit)
    return (
        np.stack(boxes).astype(np.float32),
        np.stack(landmarks).astype(np.float32),
        np.array(presence, dtype=np.float32),
        np.array(detected, dtype=np.bool_),
    )


def whole_picture(picture: Pixels) -> Floats:
    """The box whose crop, margin included, is as wide as the picture's longer side."""
    height, width = picture.shape[:2]
    half = max(height, width) / FACE_MARGIN / 2
    return np.array([width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half], dtype=np.float32)


def _largest(boxes: Floats) -> Floats:
    return np.asarray(boxes[np.argmax(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))], dtype=np.float32)


def _mesh(engine: EmbeddedEngine, picture: Pixels, box: Floats) -> tuple[Floats, float]:
    """Landmarks [478, 2] in pixels of the picture, and their presence logit."""
    crop = square_crop(picture, box, margin=LANDMARK_MARGIN, size=LANDMARK_CROP)
    outputs = engine.run("face_landmarker", {"crops": crop[None]})
    side = float(max(box[2] - box[0], box[3] - box[1])) * LANDMARK_MARGIN
    corner = (box[:2] + box[2:] - side) / 2
    points = outputs["landmarks"][0, :, :2] * (side / LANDMARK_CROP) + corner
    return np.asarray(points, dtype=np.float32), float(outputs["presence"].ravel()[0])
