"""What a user reads: the printed report and the JSON object say what the analysis holds, and nothing else."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from bonafide import cli
from bonafide.analysis import Analysis, Stage
from bonafide.report import print_report, sparkline
from bonafide.wording import REASONS, STAGES
from services.common.evidence import (
    Behaviour,
    Branch,
    BranchReport,
    Contribution,
    FaceTrack,
    ModelInfo,
    Outcome,
    PolicyInfo,
    ReasonCode,
    ScorePoint,
    SpeechWindow,
    Verdict,
)
from services.common.media import MediaInfo


@pytest.fixture
def analysis() -> Analysis:
    scored = BranchReport(
        Branch.FRAME,
        Outcome.SCORED,
        score=0.91,
        milliseconds=120.0,
        model="frame_classifier/1",
        features={"visual_prob_mean": 0.9},
        timeline=(ScorePoint(0, 0, 1, 0.9), ScorePoint(2_000_000, 0, 1, 0.1)),
    )
    silent = [
        BranchReport(branch, Outcome.NOT_APPLICABLE, ReasonCode.NO_AUDIO) for branch in (Branch.AUDIO, Branch.SYNC)
    ]
    late = BranchReport(Branch.TEMPORAL, Outcome.TIMED_OUT, ReasonCode.BRANCH_TIMED_OUT)
    return Analysis(
        request_id="r-7",
        verdict=Verdict.DEEPFAKE,
        probability=0.93,
        reasons=(ReasonCode.ABOVE_DEEPFAKE_THRESHOLD,),
        branches=(replace(scored, branch=Branch.PATCH), scored, late, *silent),
        contributions=(Contribution("visual_prob_mean", 0.9, 2.5), Contribution("intercept", 1.0, -0.2)),
        policy=PolicyInfo("balanced", 0.8, 0.2, 0.05),
        media=MediaInfo("mov,mp4", "h264", "", 1280, 720, 25.0, 10_000_000, size_bytes=1_000_000, frames_sampled=266),
        tracks=(FaceTrack(1, 0, 10_000_000, (0.1, 0.1, 0.4, 0.6), 210.0, 90, Behaviour(blinks=6)),),
        tracks_skipped=2,
        windows=(SpeechWindow(0, 4_000_000, 0.8),),
        speech_fraction=None,
        models=(
            ModelInfo("frame_classifier", "1", "ab" * 32, "triton"),
            ModelInfo("patch_gate", "2", "cd" * 32, "triton", candidate=True),
        ),
        timings={Stage.RECEIVING: 10.0, Stage.ANALYZING: 500.0},
    )


def printed(analysis: Analysis) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_report(console, "clip.mp4", analysis)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_report_names_verdict_every_branch_and_what_was_left_out(analysis: Analysis) -> None:
    text = printed(analysis)
    for expected in ("DEEPFAKE", "P(deepfake) = 0.930", "0.910", "timed out", "no sound", "6 blinks", "+2.50"):
        assert expected in text
    assert "2 more faces were not analysed" in text
    assert "frame_classifier/1 abababab (triton), patch_gate/2 cdcdcdcd (triton, on trial)" in " ".join(text.split())
    assert all(branch in text for branch in Branch)


def test_an_inconclusive_report_shows_no_probability(analysis: Analysis) -> None:
    open_case = replace(
        analysis, verdict=Verdict.INCONCLUSIVE, probability=None, reasons=(ReasonCode.TOO_LITTLE_EVIDENCE,)
    )
    text = printed(open_case)
    assert "P(deepfake)" not in text
    assert REASONS[ReasonCode.TOO_LITTLE_EVIDENCE] in text


def test_every_code_has_words() -> None:
    assert set(REASONS) == set(ReasonCode)
    assert set(STAGES) == set(Stage)


def test_json_holds_the_ledger_by_name(analysis: Analysis) -> None:
    plain = json.loads(json.dumps(analysis.to_dict()))
    assert set(plain["branches"]) == set(Branch)
    assert plain["branches"]["audio"] == plain["branches"]["sync"]
    assert plain["branches"]["frame"]["score"] == 0.91
    assert plain["branches"]["temporal"]["outcome"] == "timed_out"
    assert plain["branches"]["temporal"]["score"] is None
    assert plain["media"]["width"] == 1280


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ((), ""),
        ((ScorePoint(5, 0, 1, 0.99),), "█"),
        ((ScorePoint(0, 10, 0, 0.0), ScorePoint(30, 10, 0, 1.0)), "▁  █"),
        ((ScorePoint(0, 40, 0, 0.2), ScorePoint(10, 10, 1, 0.9)), "▂█▂▂"),
    ],
)
def test_sparkline_keeps_the_highest_of_each_stretch(points: tuple[ScorePoint, ...], expected: str) -> None:
    assert sparkline(points, cells=4) == expected


def test_unknown_branches_are_refused_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        cli.main(["analyze", "x.mp4", "--branches", "frame,face"])
    assert refused.value.code == 2
    assert "face" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_a_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["analyze", "/nonexistent/x.mp4", "--json", "--server", "127.0.0.1:1"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["reason"] == "UNREADABLE_FILE"
    assert len(captured.err.splitlines()) == 1


def test_models_are_listed_from_disk_when_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--json", "--server", "127.0.0.1:1"]) == 0
    captured = capsys.readouterr()
    names = {model["name"] for model in json.loads(captured.out)}
    assert {"face_detector", "spoof_classifier"} <= names
    assert "listing the model repository on disk" in captured.err
