"""Following faces through a clip: sightings of survey and dense frames, merged on one clock.

A face continues a track when its box overlaps the track's last one *in the same scene*. Scenes are told apart
by a tiny thumbnail of the whole picture, so a cut starts new tracks, a cut back to an earlier shot finds its
faces again, and survey frames that lie far apart still join when nothing else has changed much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from services.visual.detection import Faces, FloatArray, Picture, intersection_over_union

SHORT_GAP_US = 1_000_000
MIN_OVERLAP = 0.3
"""Least intersection over union with the track's last box within a short gap."""
MIN_OVERLAP_LATER = 0.15
"""The same after a longer gap, when a head has had time to sway."""
SAME_SCENE = 0.14
"""Largest mean difference of two thumbnails, as a share of full scale, for one scene."""
THUMBNAIL_SIDE = 12
FULL_SCALE = 255.0


@dataclass(frozen=True, slots=True)
class View:
    """One frame with its faces.

    ``dense`` says which of the two sequences the frame is of, and ``index`` its place there; ``faces`` are in
    fractions of the picture; ``thumbnail`` is float32 [12, 12, 3].
    """

    time_us: int
    dense: bool
    index: int
    faces: Faces
    thumbnail: FloatArray


@dataclass(frozen=True, slots=True)
class Sighting:
    """One face in one frame: ``box`` float32 [4] and ``points`` float32 [5, 2] in fractions of the picture."""

    time_us: int
    dense: bool
    index: int
    box: FloatArray
    points: FloatArray
    score: float


@dataclass(frozen=True, slots=True)
class Track:
    """One face followed through the clip; ``sightings`` are in time order, at least one."""

    track_id: int
    sightings: tuple[Sighting, ...]

    @property
    def presence(self) -> float:
        """Total detections times area: how much of the clip this face fills."""
        boxes = np.stack([sighting.box for sighting in self.sightings])
        return float(np.sum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Median box, clipped to the picture."""
        sides = np.clip(np.median([sighting.box for sighting in self.sightings], axis=0), 0, 1)
        return float(sides[0]), float(sides[1]), float(sides[2]), float(sides[3])


@dataclass(frozen=True, slots=True)
class Tracking:
    """The tracks that are analysed, most present first, and how many more there were."""

    tracks: tuple[Track, ...]
    skipped: int


@dataclass(slots=True)
class _Open:
    """A track that is being built."""

    sightings: list[Sighting]
    thumbnail: FloatArray


def thumbnail(picture: Picture) -> FloatArray:
    """A picture as float32 [12, 12, 3] in [0, 1]: what stays when people move and changes when the camera cuts."""
    small = cv2.resize(picture, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(FULL_SCALE)


def follow(views: Sequence[View], *, most: int) -> Tracking:
    """Join the faces of all frames into tracks.

    Args:
        views: survey and dense frames in any order.
        most: largest number of tracks to keep.

    Returns:
        Tracks numbered from 1 by presence.
    """
    building: list[_Open] = []
    for view in sorted(views, key=lambda view: (view.time_us, view.dense)):
        _extend(building, view)
    tracks = sorted((Track(0, tuple(track.sightings)) for track in building), key=lambda track: -track.presence)
    kept = tuple(Track(number, track.sightings) for number, track in enumerate(tracks[:most], start=1))
    return Tracking(kept, max(len(tracks) - most, 0))


def _extend(building: list[_Open], view: View) -> None:
    """Give each face of one frame to the track it overlaps most, best pairs first, or to a new one."""
    sightings = [
        Sighting(view.time_us, view.dense, view.index, box, points, float(score))
        for box, points, score in zip(view.faces.boxes, view.faces.points, view.faces.scores, strict=True)
    ]
    near = [track for track in building if float(np.abs(track.thumbnail - view.thumbnail).mean()) <= SAME_SCENE]
    pairs: list[tuple[float, int, int]] = []
    if near and sightings:
        lasts = np.stack([track.sightings[-1].box for track in near])
        overlaps = intersection_over_union(lasts, view.faces.boxes)
        for place, track in enumerate(near):
            gap = view.time_us - track.sightings[-1].time_us
            least = MIN_OVERLAP if gap <= SHORT_GAP_US else MIN_OVERLAP_LATER
            pairs += [
                (overlap, place, face) for face, overlap in enumerate(overlaps[place].tolist()) if overlap >= least
            ]
    taken_tracks: set[int] = set()
    taken_faces: set[int] = set()
    for _, place, face in sorted(pairs, reverse=True):
        if place not in taken_tracks and face not in taken_faces:
            taken_tracks.add(place)
            taken_faces.add(face)
            near[place].sightings.append(sightings[face])
            near[place].thumbnail = view.thumbnail
    building += [
        _Open([sighting], view.thumbnail) for face, sighting in enumerate(sightings) if face not in taken_faces
    ]


def between(track: Track, times: Sequence[int], *, longest_gap_us: int) -> dict[int, tuple[FloatArray, FloatArray]]:
    """Where a face was in dense frames, found or interpolated.

    Args:
        track: the face.
        times: microseconds of all dense frames, increasing.
        longest_gap_us: gaps between dense sightings that are longer stay open.

    Returns:
        Index of dense frame → box [4] and points [5, 2], in fractions of the picture.
    """
    dense = [sighting for sighting in track.sightings if sighting.dense]
    places = {sighting.index: (sighting.box, sighting.points) for sighting in dense}
    for before, after in pairwise(dense):
        span = after.time_us - before.time_us
        if not 0 < span <= longest_gap_us:
            continue
        for index in range(before.index + 1, after.index):
            share = np.float32((times[index] - before.time_us) / span)
            places[index] = (
                before.box + share * (after.box - before.box),
                before.points + share * (after.points - before.points),
            )
    return dict(sorted(places.items()))
