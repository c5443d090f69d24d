"""The judge of the campaigns: each way in which a request can end is told from the others."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.reliability.checker import Answer, Checker, Ending, Finding, Line, tally

QUIET = Answer(
    number=0,
    sample="clip",
    priority="interactive",
    began=0.0,
    seconds=0.1,
    code="OK",
    request_id="a",
    expected_id="a",
    sha256="1f",
    expected_sha256="1f",
    verdict="DEEPFAKE",
    probability=1 / (1 + math.exp(-3)),
    lines={
        "frame": Line("scored", "", 0.9),
        "audio": Line("scored", "", 0.8),
        "temporal": Line("not_applicable", "CLIP_TOO_SHORT", None),
    },
    log_odds={"visual_prob_mean": 2.0, "audio_prob_fake": 0.5, "intercept": 0.5},
)
DEAF = replace(
    QUIET,
    lines={**QUIET.lines, "audio": Line("failed", "BRANCH_UNAVAILABLE", None)},
    log_odds={"visual_prob_mean": 2.0, "intercept": 0.5},
    probability=1 / (1 + math.exp(-2.5)),
)
NOTHING = replace(QUIET, verdict="", lines={}, log_odds={}, probability=None)


def ending(answer: Answer) -> Ending:
    return Checker({"clip": QUIET}, frozenset({"UNAVAILABLE", "BUSY", "DEADLINE_EXCEEDED"})).judge(answer).ending


def with_line(answer: Answer, name: str, line: Line) -> Answer:
    return replace(answer, lines={**answer.lines, name: line})


def test_the_quiet_answer_is_right() -> None:
    assert ending(QUIET) is Ending.RIGHT
    assert ending(with_line(QUIET, "frame", Line("scored", "", 0.9 + 1e-5))) is Ending.RIGHT


def test_a_named_gap_is_partial() -> None:
    assert ending(DEAF) is Ending.PARTIAL


def test_no_evidence_at_all_may_only_be_inconclusive() -> None:
    nobody = with_line(DEAF, "frame", Line("timed_out", "BRANCH_TIMED_OUT", None))
    assert ending(replace(nobody, verdict="INCONCLUSIVE", probability=None, log_odds={})) is Ending.PARTIAL
    assert ending(replace(nobody, probability=None, log_odds={})) is Ending.WRONG


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        ("UNAVAILABLE", "BUSY", Ending.TYPED_ERROR),
        ("RESOURCE_EXHAUSTED", "BUSY", Ending.TYPED_ERROR),
        ("UNAVAILABLE", "", Ending.TYPED_ERROR),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", Ending.TYPED_ERROR),
        ("DEADLINE_EXCEEDED", "", Ending.LOST),
        ("OK", "", Ending.LOST),
        ("UNAVAILABLE", "UNHEARD_OF", Ending.WRONG),
        ("INTERNAL", "INTERNAL", Ending.WRONG),
        ("UNKNOWN", "", Ending.WRONG),
        ("INVALID_ARGUMENT", "BUSY", Ending.WRONG),
    ],
)
def test_without_an_analysis_the_status_decides(code: str, reason: str, expected: Ending) -> None:
    assert ending(replace(NOTHING, code=code, reason=reason)) is expected


@pytest.mark.parametrize(
    "answer",
    [
        replace(QUIET, request_id="b"),
        replace(QUIET, sha256="2f"),
        replace(QUIET, verdict="AUTHENTIC"),
        replace(QUIET, probability=0.5),
        replace(QUIET, probability=None),
        with_line(QUIET, "frame", Line("scored", "", 0.7)),
        with_line(QUIET, "temporal", Line("scored", "", 0.7)),
        with_line(QUIET, "frame", Line("not_applicable", "NO_FACE", None)),
        with_line(QUIET, "audio", Line("failed", "", None)),
        replace(QUIET, lines={"frame": QUIET.lines["frame"]}),
        replace(DEAF, log_odds=QUIET.log_odds, probability=QUIET.probability),
        replace(DEAF, probability=0.1),
        with_line(DEAF, "frame", Line("failed", "BRANCH_UNAVAILABLE", None)),
    ],
    ids=[
        "another's id",
        "another's bytes",
        "verdict",
        "probability",
        "no probability",
        "score",
        "made up",
        "gap without a failure",
        "failure without a reason",
        "ledger not whole",
        "weighs what is missing",
        "probability not of its parts",
        "verdict without evidence",
    ],
)
def test_what_contradicts_the_quiet_answer_is_wrong(answer: Answer) -> None:
    assert ending(answer) is Ending.WRONG


def test_every_finding_is_counted_once() -> None:
    found = [Finding(Ending.RIGHT), Finding(Ending.LOST, "late"), Finding(Ending.LOST, "late")]
    counted = tally(found)
    assert counted.to_dict() == {"requests": 3, "right": 1, "partial": 0, "typed_error": 0, "lost": 2, "wrong": 0}
    assert counted.remarks == {(Ending.LOST, "late"): 2}


def test_an_answer_survives_json() -> None:
    assert Answer.from_dict(DEAF.to_dict()) == DEAF
