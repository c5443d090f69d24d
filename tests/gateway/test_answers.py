"""Answers that are kept, for whom, for how long, and what an id stands for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInputError
from services.common.evidence import (
    AudioEvidence,
    Branch,
    BranchReport,
    FusionResult,
    ModelInfo,
    Outcome,
    PolicyInfo,
    ScorePoint,
    Verdict,
    VisualEvidence,
)
from services.common.media import MediaInfo
from services.gateway.analysis import Analysis, Evidence
from services.gateway.answers import Answers, Question, RequestIds
from tests.gateway.stand_ins import DETECTOR, MOTION, VOICE

QUESTION = Question("me", "ab" * 32, "models", frozenset(Branch), "")
RESULT = FusionResult(
    verdict=Verdict.AUTHENTIC,
    probability=0.1,
    reasons=(),
    contributions=(),
    sync=BranchReport(Branch.SYNC, Outcome.SCORED, score=0.1),
    policy=PolicyInfo("balanced", 0.7, 0.3, 0.05),
)


class Time:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def analysis(*outcomes: Outcome, models: tuple[ModelInfo, ...] = (DETECTOR,), points: int = 0) -> Analysis:
    lines = [BranchReport(branch, outcome) for branch, outcome in zip(Branch, outcomes, strict=False)]
    lines.append(BranchReport(Branch.SYNC, Outcome.SCORED, timeline=(ScorePoint(0, 0, 0, 0.5),) * points))
    visual = VisualEvidence((), motions=(MOTION,), models=models)
    audio = AudioEvidence((), voice=VOICE)
    return Analysis("id", RESULT, (), tuple(lines), MediaInfo(), (), Evidence(visual, audio))


def test_a_complete_answer_is_given_again_to_the_same_question_only() -> None:
    answers = Answers(1 << 20, 60.0)
    answers.keep(QUESTION, analysis(Outcome.SCORED, Outcome.NOT_APPLICABLE, Outcome.NOT_DEPLOYED))
    assert answers.find(QUESTION) is not None
    for other in (
        replace(QUESTION, caller="you"),
        replace(QUESTION, sha256="cd" * 32),
        replace(QUESTION, models="newer"),
        replace(QUESTION, branches=frozenset({Branch.AUDIO})),
        replace(QUESTION, policy="strict"),
    ):
        assert answers.find(other) is None


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_an_answer_that_lacks_a_branch_for_an_outage_is_not_kept(outcome: Outcome) -> None:
    answers = Answers(1 << 20, 60.0)
    answers.keep(QUESTION, analysis(Outcome.SCORED, outcome))
    assert answers.find(QUESTION) is None
    assert answers.held_bytes == 0


def test_answers_are_forgotten_in_time_and_when_models_change() -> None:
    time = Time()
    answers = Answers(1 << 20, 60.0, time)
    answers.keep(QUESTION, analysis(Outcome.SCORED))
    time.seconds = 59.0
    assert answers.find(QUESTION) is not None
    time.seconds = 61.0
    assert answers.find(QUESTION) is None
    answers.keep(QUESTION, analysis(Outcome.SCORED))
    newer = replace(DETECTOR, sha256="ef" * 32)
    answers.keep(replace(QUESTION, sha256="99"), analysis(Outcome.FAILED, models=(newer,)))
    assert answers.find(QUESTION) is None


def test_what_no_caller_sees_is_not_kept() -> None:
    answers = Answers(1 << 20, 60.0)
    answers.keep(QUESTION, analysis(Outcome.SCORED))
    known = answers.find(QUESTION)
    assert known is not None
    assert (known.evidence.motions, known.evidence.voice) == ((), None)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 200)), max_size=40))
def test_memory_is_bounded_and_the_latest_stay(kept: list[tuple[int, int]]) -> None:
    answers = Answers(100_000, 60.0)
    for name, points in kept:
        question = replace(QUESTION, sha256=str(name))
        answers.keep(question, analysis(Outcome.SCORED, points=points))
        assert answers.held_bytes <= 100_000
        assert answers.find(question) is not None
    for name in {name for name, _ in kept}:
        answers.find(replace(QUESTION, sha256=str(name)))
    assert answers.held_bytes >= 0


def test_nothing_is_kept_without_memory() -> None:
    answers = Answers(0, 60.0)
    answers.keep(QUESTION, analysis(Outcome.SCORED))
    assert answers.find(QUESTION) is None


def test_an_id_stands_for_one_request_of_one_caller() -> None:
    time = Time()
    ids = RequestIds(2, 60.0, time)
    ids.claim("1", QUESTION)
    ids.claim("1", QUESTION)
    ids.claim("1", replace(QUESTION, models="newer"))
    ids.claim("1", replace(QUESTION, caller="you", policy="strict"))
    for other in (
        replace(QUESTION, sha256="cd" * 32),
        replace(QUESTION, policy="strict"),
        replace(QUESTION, branches=frozenset({Branch.AUDIO})),
    ):
        with pytest.raises(InvalidInputError) as refused:
            ids.claim("1", other)
        assert refused.value.reason == "REQUEST_ID_REUSED"
    time.seconds = 61.0
    ids.claim("1", replace(QUESTION, policy="strict"))


def test_the_oldest_ids_are_forgotten() -> None:
    ids = RequestIds(2, 60.0)
    for name in ("1", "2", "3"):
        ids.claim(name, QUESTION)
    ids.claim("1", replace(QUESTION, policy="strict"))
    with pytest.raises(InvalidInputError):
        ids.claim("3", replace(QUESTION, policy="strict"))


def test_an_answer_of_a_candidate_is_not_kept_and_forgets_no_other() -> None:
    answers = Answers(1 << 20, 60.0)
    answers.keep(QUESTION, analysis(Outcome.SCORED))
    on_trial = replace(DETECTOR, version="2", sha256="cd" * 32, candidate=True)
    other = replace(QUESTION, sha256="cd" * 32)
    answers.keep(other, analysis(Outcome.SCORED, models=(on_trial,)))
    assert answers.find(other) is None
    assert answers.find(QUESTION) is not None
