"""The 478-point mesh of a face: a level crop around it, and its points back in the picture.

The crop is what MediaPipe's Face Landmarker was trained on: a square around the face, turned so that the
eyes are level (Kartynnik et al. 2019, "Real-time facial surface geometry from monocular video").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from services.visual.batching import ModelCalls
from services.visual.detection import FloatArray, Picture

MODEL = "face_landmarker"
CROP_SIZE = 256
CROP_MARGIN = 1.35
"""Side of the crop over the longer side of the detected box."""
TRUSTED_PRESENCE = 5.0
"""Presence logit below which the eyes were measured to be unreliable."""


@dataclass(frozen=True, slots=True)
class FaceView:
    """One face in one picture: ``box`` is float32 [4] (left, top, right, bottom), ``points`` float32 [5, 2]."""

    picture: Picture
    box: FloatArray
    points: FloatArray


@dataclass(frozen=True, slots=True)
class Mesh:
    """The mesh of one face.

    ``landmarks`` is float32 [478, 3], x and y in pixels of the picture and z at the same scale; ``presence`` is
    the logit that a face is there.
    """

    landmarks: FloatArray
    presence: float

    @property
    def trusted(self) -> bool:
        """Whether the eyes can be read from it."""
        return self.presence >= TRUSTED_PRESENCE


def crop_transform(box: FloatArray, points: FloatArray) -> npt.NDArray[np.float64]:
    """The similarity that takes pixels of the picture to pixels of the level crop: float64 [2, 3]."""
    right_eye, left_eye = points[0], points[1]
    angle = np.arctan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
    side = max(float(np.max(box[2:] - box[:2])), 1.0) * CROP_MARGIN
    scale = CROP_SIZE / side
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    centre = (box[:2] + box[2:]) / 2
    return np.column_stack([turn, np.full(2, CROP_SIZE / 2) - turn @ centre])


def level_crop(view: FaceView) -> Picture:
    """The face as uint8 [256, 256, 3]; what lies outside the picture repeats its edge."""
    transform = crop_transform(view.box, view.points)
    size = (CROP_SIZE, CROP_SIZE)
    crop = cv2.warpAffine(view.picture, transform, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def in_picture(landmarks: FloatArray, view: FaceView) -> FloatArray:
    """Take landmarks [478, 3] from pixels of the crop to pixels of the picture."""
    transform = crop_transform(view.box, view.points)
    back = cv2.invertAffineTransform(transform)
    plane = landmarks[:, :2] @ back[:, :2].T + back[:, 2]
    depth = landmarks[:, 2:] * np.hypot(back[0, 0], back[1, 0])
    return np.concatenate([plane, depth], axis=1).astype(np.float32)


async def find_meshes(calls: ModelCalls, views: Sequence[FaceView], *, batch: int = 16) -> list[Mesh]:
    """Landmarks of many faces, in the order of ``views``."""
    return await calls.over(MODEL, views, batch=batch, prepare=model_inputs, finish=read_meshes)


def model_inputs(views: Sequence[FaceView]) -> dict[str, npt.NDArray[Any]]:
    """Inputs of the landmarker for some faces."""
    return {"crops": np.stack([level_crop(view) for view in views])}


def read_meshes(views: Sequence[FaceView], outputs: Mapping[str, npt.NDArray[Any]]) -> list[Mesh]:
    """Outputs of the landmarker for the same faces."""
    rows = zip(views, outputs["landmarks"], outputs["presence"], strict=True)
    return [Mesh(in_picture(landmarks, view), float(presence[0])) for view, landmarks, presence in rows]
