"""Batches of the frame classifier: pairs of real and fake crops, made on the fly.

A batch follows from the seed and its number alone, so a run that resumes sees what it would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from services.visual.crops import square_crop
from training.frame.augmentation import degrade, jitter_box
from training.frame.blending import Face, cross_blend, pose_vector, self_blend
from training.frame.faces import FaceSet
from training.frame.selection import MixedSampler, pairs, training_rows

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mixture:
    """Pairs of each kind in a batch."""

    swapped: int = 6
    """A DFDC original and its face swap."""
    blended: int = 5
    """A real face and a forgery blended from it."""
    mixed: int = 5
    """A real and a fake picture of the mixed set."""

    @property
    def rows(self) -> int:
        """Crops in a batch."""
        return 2 * (self.swapped + self.blended + self.mixed)


@dataclass(frozen=True, slots=True)
class _BlendPool:
    faces: FaceSet
    rows: npt.NDArray[np.int64]
    poses: Floats

    @classmethod
    def of(cls, faces: FaceSet, rows: npt.NDArray[np.int64]) -> _BlendPool:
        usable = np.array([row for row in rows if faces.labels[row] == 0 and faces.presence[row] > 0], dtype=np.int64)
        return cls(faces, usable, np.stack([pose_vector(faces.landmarks[row]) for row in usable]))

    def face(self, place: int) -> Face:
        row = int(self.rows[place])
        return Face(self.faces.picture(row), self.faces.landmarks[row])

    def donor(self, place: int, random: np.random.Generator) -> int:
        """Of 48 random faces, that of another group in the most similar pose."""
        group = self.faces.examples[int(self.rows[place])].group
        candidates = random.integers(len(self.rows), size=48)
        others = [int(c) for c in candidates if self.faces.examples[int(self.rows[c])].group != group]
        gaps = ((self.poses[others] - self.poses[place]) ** 2).sum(axis=1)
        return others[int(gaps.argmin())]


class BatchSource:
    """Makes batch number ``i``: indexable, as torch's DataLoader wants it.

    Args:
        swaps: the set of DFDC pairs.
        mixed: the set of many methods; only its training rows are used.
        mixture: pairs of each kind.
        seed: of every choice.
        count: number of batches.
    """

    def __init__(self, swaps: FaceSet, mixed: FaceSet, *, mixture: Mixture, seed: int, count: int) -> None:
        self._swaps, self._mixed, self._mixture, self._seed, self._count = swaps, mixed, mixture, seed, count
        rows = training_rows(mixed.examples)
        self._pairs = pairs(swaps.examples)
        self._sampler = MixedSampler.of(mixed.examples, rows)
        self._pools = (_BlendPool.of(swaps, self._pairs[:, 0]), _BlendPool.of(mixed, rows))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[Pixels, Floats]:
        """Crops uint8 [rows, 224, 224, 3] and labels float32 [rows] (1 = fake)."""
        cv2.setNumThreads(1)
        random = np.random.default_rng((self._seed, number))
        made: list[tuple[Pixels, Pixels]] = []
        made += [self._swap_pair(random) for _ in range(self._mixture.swapped)]
        made += [self._blended_pair(random) for _ in range(self._mixture.blended)]
        made += [self._mixed_pair(random) for _ in range(self._mixture.mixed)]
        crops = np.stack([crop for pair in made for crop in pair])
        return crops, np.tile(np.array([0, 1], dtype=np.float32), len(made))

    def _swap_pair(self, random: np.random.Generator) -> tuple[Pixels, Pixels]:
        real, fake = self._pairs[int(random.integers(len(self._pairs)))].tolist()
        return _cut_alike(
            (self._swaps.picture(real), self._swaps.picture(fake)),
            (self._swaps.boxes[real], self._swaps.boxes[fake]),
            random,
        )

    def _mixed_pair(self, random: np.random.Generator) -> tuple[Pixels, Pixels]:
        real, fake = self._sampler.draw(random)
        first = _cut(self._mixed.picture(real), self._mixed.boxes[real], random)
        return first, _cut(self._mixed.picture(fake), self._mixed.boxes[fake], random)

    def _blended_pair(self, random: np.random.Generator) -> tuple[Pixels, Pixels]:
        pool = self._pools[int(random.random() < 0.4)]
        place = int(random.integers(len(pool.rows)))
        face = pool.face(place)
        if random.random() < 0.25:
            real, fake = face.pixels, cross_blend(face, pool.face(pool.donor(place, random)), random)
        else:
            real, fake = self_blend(face, random)
        box = pool.faces.boxes[int(pool.rows[place])]
        return _cut_alike((real, fake), (box, box), random)


def _cut(pixels: Pixels, box: Floats, random: np.random.Generator) -> Pixels:
    """Degrade, mirror, and cut as serving does, around a box a little off."""
    crop = square_crop(degrade(pixels, random), jitter_box(box, random))
    return np.ascontiguousarray(crop[:, ::-1]) if random.random() < 0.5 else crop


def _cut_alike(
    pictures: tuple[Pixels, Pixels], boxes: tuple[Floats, Floats], random: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Cut a pair; two times in three with the very same changes, so that only the forgery differs."""
    seed = int(random.integers(2**62))
    other = seed if random.random() < 0.67 else seed + 1
    first = _cut(pictures[0], boxes[0], np.random.default_rng(seed))
    return first, _cut(pictures[1], boxes[1], np.random.default_rng(other))
