"""A known truth goes in as a file and comes out as a verdict with its whole ledger."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bonafide.client import Client, Event
from deploy.local.portrait import render_portrait
from deploy.local.stack import Stack
from services.common.evidence import Branch, BranchReport, Outcome, ReasonCode, Verdict
from services.common.models import ModelRepository
from tests import media_factory as make
from tests.system.conftest import analyze

BLINKS = (0.8, 2.1, 3.4, 5.0, 6.7, 8.3)
SERVICES = {
    "gateway": "bonafide.v1.AnalysisService",
    "visual": "bonafide.v1.VisualService",
    "audio": "bonafide.v1.AudioService",
    "fusion": "bonafide.v1.FusionService",
}


@pytest.fixture(scope="session")
def portrait_clip() -> bytes:
    """Ten seconds of a face with exactly six blinks, without sound."""
    frames = list(render_portrait(seconds=10, fps=25, blink_times=BLINKS))
    height, width = frames[0].shape[:2]
    clip = make.Clip(
        frames=len(frames), width=width, height=height, audio_codec=None, picture=lambda index, *_: frames[index]
    )
    return clip.bytes()


def test_six_blinks_are_counted_through_the_whole_path(client: Client, portrait_clip: bytes) -> None:
    answer = analyze(client, portrait_clip)
    assert len(answer.tracks) == 1
    assert answer.tracks[0].behaviour.blinks == len(BLINKS)
    assert answer.tracks[0].behaviour.blinks_per_minute == pytest.approx(36, rel=0.1)


def test_ledger_is_complete_and_the_verdict_is_made_of_it(client: Client, portrait_clip: bytes) -> None:
    events: list[Event] = []
    answer = client.analyze(io.BytesIO(portrait_clip), on_event=events.append, request_id="r-1", timeout=60)
    assert answer.request_id == "r-1"
    assert [report.branch for report in answer.branches] == list(Branch)
    reports = {report.branch: report for report in answer.branches}
    assert reports[Branch.FRAME].outcome is Outcome.SCORED
    assert reports[Branch.PATCH].outcome is Outcome.SCORED
    assert reports[Branch.AUDIO].reason is ReasonCode.NO_AUDIO
    assert {event.branch for event in events if isinstance(event, BranchReport)} == set(Branch)
    if answer.verdict is not Verdict.INCONCLUSIVE:
        assert answer.probability is not None
        log_odds = sum(part.log_odds for part in answer.contributions)
        assert answer.probability == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=1e-6)
    assert {model.name for model in answer.models} >= {"face_detector", "frame_classifier", "patch_gate"}
    assert answer.media.frames_sampled > 16
    assert len({point.time_us for point in reports[Branch.FRAME].timeline}) == 16


def test_same_bytes_same_answer(client: Client, portrait_clip: bytes) -> None:
    first, second = analyze(client, portrait_clip), analyze(client, portrait_clip)
    assert [report.score for report in first.branches] == [report.score for report in second.branches]
    assert first.media.sha256 == second.media.sha256


def test_only_the_branches_asked_for_run(client: Client, portrait_clip: bytes) -> None:
    answer = client.analyze(io.BytesIO(portrait_clip), branches=[Branch.FRAME], timeout=60)
    outcomes = {report.branch: report.outcome for report in answer.branches}
    assert outcomes.pop(Branch.FRAME) is Outcome.SCORED
    assert set(outcomes.values()) == {Outcome.NOT_REQUESTED}


@pytest.mark.parametrize(
    "clip",
    [
        make.Clip(container="mov"),
        make.Clip(container="matroska", video_codec="libx265"),
        make.Clip(container="avi", video_codec="mpeg4", audio_codec="mp3"),
        make.Clip(container="webm", video_codec="libvpx-vp9", audio_codec="libopus"),
        make.Clip(container="mp4", video_codec="libsvtav1"),
        make.Clip(rotation=90),
        make.Clip(times=tuple(float(value) for value in np.cumsum(np.tile([0.02, 0.05, 0.11], 12)))),
        make.Clip(audio_codec=None),
    ],
    ids=["mov", "mkv-hevc", "avi", "webm-vp9", "mp4-av1", "rotated", "vfr", "no sound"],
)
def test_formats(client: Client, clip: make.Clip) -> None:
    answer = analyze(client, clip.bytes())
    assert answer.media.duration_us == pytest.approx(clip.seconds * 1e6, rel=0.1)
    assert not answer.media.partial
    assert (answer.media.width > answer.media.height) is (clip.rotation == 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_stills_are_judged_by_the_picture_alone(client: Client, kind: str) -> None:
    answer = analyze(client, make.still_picture(kind, pixels=make.portrait()))
    reports = {report.branch: report for report in answer.branches}
    assert answer.media.still
    assert reports[Branch.FRAME].outcome is Outcome.SCORED
    assert reports[Branch.AUDIO].reason is ReasonCode.NO_AUDIO
    assert reports[Branch.TEMPORAL].outcome is not Outcome.SCORED


def test_every_service_has_health_and_reflection(stack: Stack) -> None:
    for name, service in SERVICES.items():
        with grpc.insecure_channel(stack.addresses[name], options=[("grpc.enable_http_proxy", 0)]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for asked in ("", service, "liveness"):
                status = health.Check(health_pb2.HealthCheckRequest(service=asked), timeout=5).status
                assert status == health_pb2.HealthCheckResponse.SERVING
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            answer = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=5)))
            assert service in {found.name for found in answer.list_services_response.service}


def test_models_are_listed_with_their_cards(client: Client) -> None:
    served = {model.name: model for model in client.models()}
    repository = ModelRepository(Path("model_repository"))
    assert {"face_detector", "frame_classifier", "patch_gate", "spoof_classifier"} <= set(served)
    for name, model in served.items():
        if name in repository.names():
            assert model.sha256 == repository.card(name).sha256
        assert model.headline


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bonafide.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def test_command_line_speaks_json(stack: Stack, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.mp4"
    good.write_bytes(make.still_picture("PNG", pixels=make.portrait()))
    bad.write_bytes(make.text_file())
    done = run_cli("analyze", str(good), "--json", "--server", stack.gateway)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {"file", "verdict", "probability", "reasons", "branches", "media", "models"} <= set(answer)
    assert set(answer["branches"]) == set(Branch)
    assert (answer["probability"] is None) is (answer["verdict"] == "INCONCLUSIVE")
    mixed = run_cli("analyze", str(bad), str(good), "--json", "--server", stack.gateway)
    assert mixed.returncode == 2
    assert len(mixed.stdout.splitlines()) == 2
    assert len(mixed.stderr.splitlines()) == 1


def test_ten_clips_of_different_kinds_get_complete_ledgers(client: Client, data_directory: Path) -> None:
    with (data_directory / "clips" / "clips.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    kinds: dict[str, str] = {}
    for row in rows:
        kinds.setdefault(f"{row['label']} {row['method']} {Path(row['file']).suffix}", row["file"])
    chosen = list(kinds.values())[:10]
    assert len(chosen) == 10
    for file in chosen:
        answer = client.analyze(data_directory / "clips" / file, timeout=90)
        assert [report.branch for report in answer.branches] == list(Branch)
        scored = [report for report in answer.branches if report.outcome is Outcome.SCORED]
        assert scored
        assert all(0 <= report.score <= 1 for report in scored if report.score is not None)
        assert all(report.reason is not None for report in answer.branches if report.outcome is not Outcome.SCORED)
