"""Whole requests on pictures whose truth is known."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from deploy.local.portrait import render_portrait
from services.common.evidence import VISUAL_BRANCHES, Branch, BranchReport, Outcome, ReasonCode, VisualEvidence
from services.common.media import Frame
from services.common.models import ModelRepository
from services.common.telemetry import STAGE_DURATION, Telemetry
from services.visual.detection import Picture
from services.visual.pipeline import VisualPipeline
from services.visual.scoring import sigmoid
from tests.visual.conftest import MODELS, add_model, link_models, make_pipeline, redness_graph, sequence_graph

ALL = frozenset(VISUAL_BRANCHES)
BLINKS = {0: [0.5, 1.3, 2.2, 3.6, 4.4, 6.3], 1: [1.0, 2.0, 3.0], 2: []}


def frames(pictures: Sequence[Picture], step_us: int = 1_000_000) -> list[Frame]:
    return [Frame(index * step_us, picture) for index, picture in enumerate(pictures)]


def tinted(picture: Picture, red: float) -> Picture:
    """More red and less blue, or the other way round; grey first, so that only the tint counts."""
    grey = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.float32)
    return np.asarray(np.clip(grey * 0.6 + np.array([red, 0, -red]) + 40, 0, 255), np.uint8)


def outcomes(evidence: VisualEvidence) -> dict[Branch, tuple[Outcome, ReasonCode | None]]:
    return {report.branch: (report.outcome, report.reason) for report in evidence.reports}


def report(evidence: VisualEvidence, branch: Branch) -> BranchReport:
    return next(report for report in evidence.reports if report.branch is branch)


async def test_a_portrait_is_found_scored_and_explained(pipeline: VisualPipeline, portrait: Picture) -> None:
    evidence = await pipeline.analyze(frames([portrait] * 4), [], ALL, timeout=60)
    assert outcomes(evidence) == {
        Branch.PATCH: (Outcome.SCORED, None),
        Branch.FRAME: (Outcome.SCORED, None),
        Branch.TEMPORAL: (Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED),
    }
    (track,) = evidence.tracks
    assert (track.start_us, track.end_us, track.detections) == (0, 3_000_000, 4)
    assert 80 < track.face_size < 100
    assert track.behaviour.blinks is None
    assert evidence.motions == ()
    assert [model.name for model in evidence.models] == ["face_detector", "frame_classifier", "patch_gate"]
    assert {model.engine for model in evidence.models} == {"embedded"}
    assert report(evidence, Branch.FRAME).model == "frame_classifier/1"
    assert report(evidence, Branch.FRAME).features["visual_num_faces"] == 4
    assert report(evidence, Branch.PATCH).features["tiny_num_patches"] == 4 * 3
    assert [point.time_us for point in report(evidence, Branch.FRAME).timeline] == [0, 1_000_000, 2_000_000, 3_000_000]


async def test_stages_are_timed_that_took_place(colour_judges: Path, portrait: Picture) -> None:
    telemetry = Telemetry("visual")
    pipeline = make_pipeline(colour_judges, telemetry)
    await pipeline.analyze(frames([portrait]), frames([portrait], 40_000), ALL, timeout=60)
    await pipeline.analyze(frames([np.full((360, 640, 3), 90, np.uint8)]), [], ALL, timeout=60)
    read = telemetry.registry.get_sample_value
    timed = {stage: read(STAGE_DURATION.name + "_count", {"stage": stage}) for stage in ("detect", "landmark", *ALL)}
    assert timed == {"detect": 2, "landmark": 1, "patch": 1, "frame": 1, "temporal": None}


async def test_no_pictures_means_no_video(pipeline: VisualPipeline) -> None:
    evidence = await pipeline.analyze([], [], ALL, timeout=60)
    assert set(outcomes(evidence).values()) == {(Outcome.NOT_APPLICABLE, ReasonCode.NO_VIDEO)}


async def test_pictures_without_faces(pipeline: VisualPipeline) -> None:
    empty = np.full((360, 640, 3), 90, np.uint8)
    evidence = await pipeline.analyze(frames([empty] * 3), frames([empty] * 5, 40_000), ALL, timeout=60)
    assert set(outcomes(evidence).values()) == {(Outcome.NOT_APPLICABLE, ReasonCode.NO_FACE)}
    assert evidence.tracks == ()


async def test_a_face_below_the_smallest_size_is_reported_and_not_scored(
    pipeline: VisualPipeline, portrait: Picture
) -> None:
    small = np.asarray(cv2.resize(portrait, (150, 150), interpolation=cv2.INTER_AREA), np.uint8)
    evidence = await pipeline.analyze(frames([small] * 2), [], ALL, timeout=60)
    assert outcomes(evidence)[Branch.FRAME] == (Outcome.NOT_APPLICABLE, ReasonCode.FACE_TOO_SMALL)
    assert outcomes(evidence)[Branch.PATCH] == (Outcome.NOT_APPLICABLE, ReasonCode.FACE_TOO_SMALL)
    assert len(evidence.tracks) == 1
    assert evidence.tracks[0].face_size < 32


async def test_only_the_branches_asked_for_run(pipeline: VisualPipeline, portrait: Picture) -> None:
    evidence = await pipeline.analyze(frames([portrait]), [], frozenset({Branch.PATCH}), timeout=60)
    assert outcomes(evidence) == {
        Branch.PATCH: (Outcome.SCORED, None),
        Branch.FRAME: (Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED),
        Branch.TEMPORAL: (Outcome.NOT_REQUESTED, ReasonCode.BRANCH_NOT_REQUESTED),
    }
    assert "frame_classifier" not in [model.name for model in evidence.models]


async def test_of_twelve_faces_eight_are_analysed(pipeline: VisualPipeline, portrait: Picture) -> None:
    wall = np.tile(portrait[20:260, 100:340], (3, 4, 1))
    evidence = await pipeline.analyze(frames([wall] * 2), [], ALL, timeout=60)
    assert len(evidence.tracks) == 8
    assert evidence.tracks_skipped == 4
    assert report(evidence, Branch.FRAME).features["visual_num_faces"] == 2
    assert {point.track_id for point in report(evidence, Branch.FRAME).timeline} == set(range(1, 9))


async def test_the_most_suspicious_of_two_faces_speaks_for_the_clip(
    pipeline: VisualPipeline, portrait: Picture
) -> None:
    pair = np.concatenate([tinted(portrait, 25), tinted(portrait, -25)], axis=1)
    evidence = await pipeline.analyze(frames([pair] * 5), [], ALL, timeout=60)
    assert len(evidence.tracks) == 2
    frame = report(evidence, Branch.FRAME)
    expected = float(sigmoid(8 * 50 / 255))
    assert frame.score == pytest.approx(expected, abs=0.01)
    assert frame.features["visual_prob_mean"] == pytest.approx(expected, abs=0.01)
    assert min(point.probability for point in frame.timeline) == pytest.approx(1 - expected, abs=0.01)


@pytest.mark.parametrize("seed", list(BLINKS))
async def test_exactly_the_rendered_blinks_are_counted(pipeline: VisualPipeline, seed: int) -> None:
    blinks = BLINKS[seed]
    seconds = 7 if blinks[3:] else 4
    dense = frames(list(render_portrait(seconds, 25, blinks, seed=seed, mouth=lambda t: abs(np.sin(8 * t)))), 40_000)
    evidence = await pipeline.analyze(dense[::16], dense, frozenset({Branch.FRAME}), timeout=100)
    (track,) = evidence.tracks
    assert track.behaviour.blinks == len(blinks)
    assert track.behaviour.observed_seconds == pytest.approx(seconds - 0.04)
    assert track.behaviour.blinks_per_minute == pytest.approx(60 * len(blinks) / (seconds - 0.04))
    assert len(track.behaviour.eye_aspect) == len(dense)
    (motion,) = evidence.motions
    assert (motion.track_id, len(motion.time_us)) == (track.track_id, len(dense))


async def test_identity_holds_when_the_face_is_hidden_for_a_moment(pipeline: VisualPipeline, portrait: Picture) -> None:
    hidden = portrait.copy()
    hidden[40:200, 150:300] = 120
    pictures = [portrait] * 8 + [hidden] * 6 + [portrait] * 8
    evidence = await pipeline.analyze([], frames(pictures, 40_000), frozenset({Branch.PATCH}), timeout=60)
    assert [track.end_us for track in evidence.tracks] == [21 * 40_000]
    assert outcomes(evidence)[Branch.PATCH] == (Outcome.SCORED, None)


async def test_time_used_up_is_said_of_every_branch(pipeline: VisualPipeline, portrait: Picture) -> None:
    evidence = await pipeline.analyze(frames([portrait] * 8), [], ALL, timeout=0)
    assert set(outcomes(evidence).values()) == {(Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT)}


async def test_an_absent_classifier_is_not_deployed(
    repository: ModelRepository, tmp_path: Path, portrait: Picture
) -> None:
    link_models(repository.root, tmp_path)
    add_model(tmp_path, "patch_gate", redness_graph("patch_logits"))
    evidence = await make_pipeline(tmp_path).analyze(frames([portrait]), [], ALL, timeout=60)
    assert outcomes(evidence)[Branch.PATCH] == (Outcome.SCORED, None)
    assert outcomes(evidence)[Branch.FRAME] == (Outcome.NOT_DEPLOYED, ReasonCode.MODEL_NOT_DEPLOYED)


async def test_a_broken_classifier_loses_its_branch_alone(
    repository: ModelRepository, tmp_path: Path, portrait: Picture
) -> None:
    link_models(repository.root, tmp_path)
    add_model(tmp_path, "patch_gate", redness_graph("patch_logits"))
    add_model(tmp_path, "frame_classifier", sequence_graph())
    evidence = await make_pipeline(tmp_path).analyze(frames([portrait]), [], ALL, timeout=60)
    assert outcomes(evidence)[Branch.PATCH] == (Outcome.SCORED, None)
    assert outcomes(evidence)[Branch.FRAME] == (Outcome.FAILED, ReasonCode.BRANCH_UNAVAILABLE)


@pytest.mark.parametrize(("threshold", "early"), [(0.9, True), (0.2, False)])
async def test_the_gate_spares_slower_networks_only_at_its_operating_point(
    repository: ModelRepository, tmp_path: Path, portrait: Picture, *, threshold: float, early: bool
) -> None:
    link_models(repository.root, tmp_path)
    point = {"early_exit": True, "threshold": threshold}
    add_model(tmp_path, "patch_gate", redness_graph("patch_logits"), operating_point=point)
    add_model(tmp_path, "frame_classifier", redness_graph("embedding"))
    evidence = await make_pipeline(tmp_path).analyze(frames([tinted(portrait, 0)] * 2), [], ALL, timeout=60)
    assert outcomes(evidence)[Branch.PATCH] == (Outcome.SCORED, None)
    spared = (Outcome.NOT_APPLICABLE, ReasonCode.EARLY_EXIT)
    assert outcomes(evidence)[Branch.FRAME] == (spared if early else (Outcome.SCORED, None))


async def test_a_deployed_sequence_network_reads_the_dense_window(colour_judges: Path, tmp_path: Path) -> None:
    link_models(colour_judges, tmp_path)
    add_model(tmp_path, "frame_classifier", redness_graph("embedding"))
    add_model(tmp_path, "temporal", sequence_graph())
    pipeline = make_pipeline(tmp_path)
    dense = frames(list(render_portrait(2, 25, seed=1)), 40_000)
    long = await pipeline.analyze(dense[::25], dense, frozenset({Branch.TEMPORAL}), timeout=100)
    scored = report(long, Branch.TEMPORAL)
    assert scored.outcome is Outcome.SCORED
    assert scored.features == {"temporal_prob_fake": scored.score}
    assert {point.track_id for point in scored.timeline} == {1}
    assert "temporal" in [model.name for model in long.models]
    assert report(long, Branch.FRAME).outcome is Outcome.NOT_REQUESTED
    short = await pipeline.analyze(dense[:1], dense[:12], ALL, timeout=60)
    assert outcomes(short)[Branch.TEMPORAL] == (Outcome.NOT_APPLICABLE, ReasonCode.CLIP_TOO_SHORT)


@pytest.mark.skipif(not (MODELS / "frame_classifier/card.json").is_file(), reason="frame_classifier is not trained yet")
async def test_the_served_classifiers_keep_their_contract(repository: ModelRepository, portrait: Picture) -> None:
    evidence = await make_pipeline(repository.root).analyze(frames([portrait] * 3), [], ALL, timeout=60)
    for branch in (Branch.PATCH, Branch.FRAME):
        scored = report(evidence, branch)
        assert scored.outcome is Outcome.SCORED
        assert scored.score is not None
        assert 0 < scored.score < 1
