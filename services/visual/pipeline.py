"""The story of one request: find faces, follow them, judge them, watch what they do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from services.common.clip_models import ClipModels, FixedModels, Models
from services.common.errors import BonafideError
from services.common.evidence import (
    Behaviour,
    Branch,
    BranchReport,
    FaceTrack,
    ModelInfo,
    MotionSequence,
    Outcome,
    ReasonCode,
    VisualEvidence,
)
from services.common.inference import InferenceEngine
from services.common.media import Frame
from services.common.models import ModelCard, ModelRepository
from services.common.telemetry import STAGE_DURATION, Telemetry
from services.common.tracing import branch_span, note_report
from services.visual import behaviour, detection, landmarks, ledger, temporal
from services.visual.batching import ModelCalls
from services.visual.crops import MIN_FACE_SIZE
from services.visual.detection import Picture, detect
from services.visual.ensemble import Ensemble, read_ensemble
from services.visual.judging import Judge, Judgement
from services.visual.landmarks import FaceView, Mesh, find_meshes
from services.visual.motion import lip_motion
from services.visual.scoring import FRAME_MODEL, PATCH_MODEL, Choice, FaceCrop, choose_crops, face_size
from services.visual.settings import VisualSettings
from services.visual.tracking import Track, Tracking, View, between, follow, thumbnail

REQUIRED_MODELS = (detection.MODEL, landmarks.MODEL, PATCH_MODEL, FRAME_MODEL)
OPTIONAL_MODELS = (temporal.MODEL,)
_log = logging.getLogger(__name__)
LONGEST_INTERPOLATION_US = 500_000
"""Between two detections further apart than this a face's place is not guessed."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one face did in the dense window; ``meshes`` by index of frame."""

    behaviour: Behaviour
    motion: MotionSequence | None
    meshes: Mapping[int, Mesh]


@dataclass(frozen=True, slots=True)
class Watched:
    """Observations by track, and the error that ended them."""

    by_track: Mapping[int, Observation]
    fault: BonafideError | None = None


@dataclass(frozen=True, slots=True)
class _Sight:
    """What is to be judged of one clip: crops, the dense window, and what will be known of what the faces do."""

    crops: Sequence[FaceCrop]
    branches: frozenset[Branch]
    dense: Sequence[Frame]
    watching: asyncio.Future[Watched]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the networks say of a clip, and which of them took part."""

    reports: tuple[BranchReport, ...]
    models: tuple[ModelInfo, ...]


class VisualPipeline:
    """Analyses the pictures of one clip at a time; holds no state between clips.

    Args:
        engine: where the networks run.
        settings: limits, batch sizes, and where the model cards are.
        telemetry: where stages are timed; nobody scrapes it when None.
        models: chooses the versions of the networks; those of the root cards on ``engine`` when None.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        settings: VisualSettings,
        telemetry: Telemetry | None = None,
        models: Models | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry("visual")
        self._settings = settings
        self._models = models or FixedModels(engine, settings.repository())

    async def analyze(
        self,
        survey: Sequence[Frame],
        dense: Sequence[Frame],
        branches: frozenset[Branch],
        *,
        timeout: float,
        content: str = "",
    ) -> VisualEvidence:
        """Say what the pictures of one clip show.

        Args:
            survey: frames spread over the clip at native resolution, in time order.
            dense: frames of one window in close succession, in time order; may be empty.
            branches: which of PATCH, FRAME and TEMPORAL to score.
            timeout: seconds for everything; branches that do not make it are reported as timed out.
            content: hash of the clip's file, where it is known.

        Returns:
            One report a visual branch, and what is known of each face.
        """
        if not survey and not dense:
            return _nothing(branches, ReasonCode.NO_VIDEO)
        settings, steady = self._settings, self._models.steady()
        calls = ModelCalls(steady.engine, timeout=timeout, in_flight=settings.calls_in_flight)
        try:
            with self._telemetry.stage("detect"):
                tracking = await self._find_tracks(calls, survey, dense)
        except BonafideError as error:
            return VisualEvidence(ledger.complete(ledger.failure(branch, error) for branch in branches))
        if not tracking.tracks:
            return _nothing(branches, ReasonCode.NO_FACE, await asyncio.to_thread(_finder, steady))

        pictures = [frame.pixels for frame in survey], [frame.pixels for frame in dense]
        crops = self._choose(tracking.tracks, *pictures)
        watching = asyncio.ensure_future(self._observe(calls, tracking.tracks, dense))
        try:
            judged = await self._judge(calls, _Sight(crops, branches, dense, watching), content)
            watched = await watching
        finally:
            watching.cancel()
        return VisualEvidence(
            reports=ledger.complete(judged.reports),
            tracks=tuple(
                _face_track(track, *pictures, watched.by_track.get(track.track_id)) for track in tracking.tracks
            ),
            tracks_skipped=tracking.skipped,
            motions=tuple(seen.motion for seen in watched.by_track.values() if seen.motion is not None),
            models=judged.models,
        )

    async def _judge(self, calls: ModelCalls, sight: _Sight, content: str) -> Judged:
        """The reports of all branches, by the networks that this clip gets."""

        async def judge(models: ClipModels, seconds: float) -> Judged:
            return await self._judge_by(models, calls.through(models.engine, seconds), sight)

        judged = await self._models.answer(content, judge, timeout=calls.remaining())
        for report in judged.reports:
            if report.milliseconds:
                self._telemetry.observe(STAGE_DURATION, report.milliseconds / 1000, stage=report.branch)
        return judged

    async def _judge_by(self, models: ClipModels, calls: ModelCalls, sight: _Sight) -> Judged:
        """The reports of all branches, by these networks."""
        ensemble, cards = await asyncio.to_thread(_deployed, models.repository)
        judge = Judge(calls, cards, ensemble, batch=self._settings.score_batch)
        judgement = await judge.judge(sight.crops, sight.branches)
        watched = await asyncio.shield(sight.watching)  # other networks may need it, too
        reports = [*judgement.reports]
        if Branch.TEMPORAL in sight.branches:
            reports.append(await _judge_sequence(calls, cards, judgement, watched, sight.dense))
        of_branch = {
            Branch.PATCH: {PATCH_MODEL},
            Branch.FRAME: set(ensemble.members),
            Branch.TEMPORAL: {temporal.MODEL},
        }
        names = {detection.MODEL}.union(*(of_branch[one.branch] for one in reports if one.outcome is Outcome.SCORED))
        names |= {landmarks.MODEL} if watched.by_track else set()
        return Judged(tuple(reports), tuple(models.info(cards[name]) for name in sorted(names) if name in cards))

    async def watch(self, survey: Sequence[Frame], dense: Sequence[Frame], *, timeout: float) -> Watched:
        """What each face does in the dense frames, judged by no network; training reads the same as serving."""
        engine = self._models.steady().engine
        calls = ModelCalls(engine, timeout=timeout, in_flight=self._settings.calls_in_flight)
        tracking = await self._find_tracks(calls, survey, dense)
        return await self._observe(calls, tracking.tracks, dense)

    async def crops(self, survey: Sequence[Frame], dense: Sequence[Frame], *, timeout: float) -> list[FaceCrop]:
        """The faces that would be judged one by one, most present track first; judged by no network."""
        calls = ModelCalls(self._models.steady().engine, timeout=timeout, in_flight=self._settings.calls_in_flight)
        tracking = await self._find_tracks(calls, survey, dense)
        return self._choose(tracking.tracks, [frame.pixels for frame in survey], [frame.pixels for frame in dense])

    def _choose(self, tracks: Sequence[Track], survey: Sequence[Picture], dense: Sequence[Picture]) -> list[FaceCrop]:
        settings = self._settings
        return choose_crops(tracks, survey, dense, Choice(settings.max_crops_per_track, settings.max_crops))

    async def _find_tracks(self, calls: ModelCalls, survey: Sequence[Frame], dense: Sequence[Frame]) -> Tracking:
        """Detect faces in all survey frames and every few dense ones, and follow them."""
        settings = self._settings
        chosen = sorted({*range(0, len(dense), settings.detect_every), *([len(dense) - 1] if dense else [])})
        places = [*((False, index) for index in range(len(survey))), *((True, index) for index in chosen)]
        found = [
            *await detect(calls, [frame.pixels for frame in survey], batch=settings.detection_batch),
            *await detect(
                calls,
                [dense[index].pixels for index in chosen],
                max_side=settings.dense_detection_side,
                batch=settings.detection_batch,
            ),
        ]

        def join() -> Tracking:
            views = []
            for (of_dense, index), faces in zip(places, found, strict=True):
                frame = (dense if of_dense else survey)[index]
                height, width = frame.pixels.shape[:2]
                fractions = faces.scaled(1 / width, 1 / height)
                views.append(View(frame.time_us, of_dense, index, fractions, thumbnail(frame.pixels)))
            return follow(views, most=self._settings.max_tracks)

        return await asyncio.to_thread(join)

    async def _observe(self, calls: ModelCalls, tracks: Sequence[Track], dense: Sequence[Frame]) -> Watched:
        """Lay meshes on the faces of the dense frames and read blinks and lips off them.

        Running out of time or engine here costs only the branch that lives on it, so the error is an answer.
        """
        times = [frame.time_us for frame in dense]
        views: dict[int, dict[int, FaceView]] = {}
        left = self._settings.max_meshes
        for track in tracks:
            places = between(track, times, longest_gap_us=LONGEST_INTERPOLATION_US)
            of_track = {index: _face_view(dense[index].pixels, *place) for index, place in places.items()}
            if of_track and len(of_track) <= left and _side(of_track) >= MIN_FACE_SIZE:
                left -= len(of_track)
                views[track.track_id] = of_track
        if not views:
            return Watched({})
        batch = self._settings.landmark_batch
        try:
            with self._telemetry.stage("landmark"):
                found = await asyncio.gather(
                    *(find_meshes(calls, list(of_track.values()), batch=batch) for of_track in views.values())
                )
        except BonafideError as error:
            _log.warning("faces were not watched: %s", error.message)
            return Watched({}, error)

        def read() -> Watched:
            observations = {}
            for (track_id, of_track), meshes in zip(views.items(), found, strict=True):
                samples = [behaviour.Sample(times[index], mesh) for index, mesh in zip(of_track, meshes, strict=True)]
                observations[track_id] = Observation(
                    behaviour.observe(samples), lip_motion(track_id, samples), dict(zip(of_track, meshes, strict=True))
                )
            return Watched(observations)

        return await asyncio.to_thread(read)


def _finder(models: ClipModels) -> tuple[ModelInfo, ...]:
    """The network that looked for faces, where it has a card."""
    repository = models.repository
    return tuple(models.info(repository.card(name)) for name in repository.names() if name == detection.MODEL)


def _deployed(repository: ModelRepository) -> tuple[Ensemble, dict[str, ModelCard]]:
    """The ensemble of a repository, and cards of the models in it that this service uses."""
    ensemble, present = read_ensemble(repository), set(repository.names())
    used = (*REQUIRED_MODELS, *ensemble.companions, *OPTIONAL_MODELS)
    return ensemble, {name: repository.card(name) for name in used if name in present}


def verified_models(repository: ModelRepository) -> dict[str, ModelCard]:
    """Cards of all networks that this service runs, each file as its card says.

    Raises:
        BonafideError: one of them is absent or not to be trusted, those of the ensemble among them.
    """
    required = (*REQUIRED_MODELS, *read_ensemble(repository).companions)
    return repository.verify_all(required, OPTIONAL_MODELS)


async def _judge_sequence(
    calls: ModelCalls, cards: Mapping[str, ModelCard], judgement: Judgement, watched: Watched, dense: Sequence[Frame]
) -> BranchReport:
    """The TEMPORAL report, of the face that speaks for the clip; else of the most present one that was seen."""
    card = cards.get(temporal.MODEL)
    if card is not None and judgement.early_exit:
        return ledger.not_applicable(Branch.TEMPORAL, ReasonCode.EARLY_EXIT)
    if card is not None and watched.fault is not None:
        return ledger.failure(Branch.TEMPORAL, watched.fault)
    speaker = judgement.speaker if judgement.speaker is not None else min(watched.by_track, default=0)
    seen = watched.by_track.get(speaker)
    face = temporal.FaceSequence(speaker, seen.meshes if seen is not None else {})
    pictures, times = [frame.pixels for frame in dense], [frame.time_us for frame in dense]
    with branch_span(Branch.TEMPORAL) as opened:
        rows = temporal.embedding_rows(card, cards.get(FRAME_MODEL), judgement.embeddings) if card is not None else None
        report = await temporal.judge_sequence(calls, card, pictures, times, face, rows)
        note_report(opened, report)
    return report


def _face_view(picture: Picture, box: detection.FloatArray, points: detection.FloatArray) -> FaceView:
    size = np.array([picture.shape[1], picture.shape[0]], np.float32)
    return FaceView(picture, box * np.tile(size, 2), points * size)


def _side(views: Mapping[int, FaceView]) -> float:
    """Median shorter side of a face over its frames, pixels."""
    return float(np.median([np.min(view.box[2:] - view.box[:2]) for view in views.values()]))


def _face_track(
    track: Track, survey: Sequence[Picture], dense: Sequence[Picture], seen: Observation | None
) -> FaceTrack:
    native = [sighting for sighting in track.sightings if not sighting.dense] or track.sightings
    sizes = [face_size(sighting, (dense if sighting.dense else survey)[sighting.index]) for sighting in native]
    return FaceTrack(
        track_id=track.track_id,
        start_us=track.sightings[0].time_us,
        end_us=track.sightings[-1].time_us,
        box=track.box,
        face_size=float(np.median(sizes)),
        detections=len(track.sightings),
        behaviour=seen.behaviour if seen is not None else Behaviour(),
    )


def _nothing(branches: frozenset[Branch], reason: ReasonCode, models: tuple[ModelInfo, ...] = ()) -> VisualEvidence:
    return VisualEvidence(ledger.complete(ledger.not_applicable(branch, reason) for branch in branches), models=models)
