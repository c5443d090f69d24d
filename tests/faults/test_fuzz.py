"""Generated input against the gateway's own code: a minute of the campaign, and shapes that hypothesis thinks of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.reliability.doors import Doors
from benchmarks.reliability.fuzz import Account, Campaign, run_guided
from benchmarks.reliability.inputs import Generator, Input, Kind
from benchmarks.reliability.reasons import documented_reasons
from bonafide.v1 import analysis_pb2

SECONDS = 60
FILES = Generator(0).files


@pytest.mark.timeout(300)
def test_a_minute_of_the_campaign_finds_nothing(tmp_path: Path) -> None:
    account = Account(seed=7)
    Campaign(account, tmp_path).run(10**7, SECONDS)
    assert (account.crashes, account.hangs, account.leaks) == (0, 0, 0), account.faults
    assert account.inputs > 1000


def test_the_same_number_is_the_same_input() -> None:
    assert [Generator(3).make(number) for number in range(50)] == [Generator(3).make(number) for number in range(50)]
    assert Generator(3).make(1) != Generator(4).make(1)


TEXT = st.text(max_size=300)
OPTIONS = st.builds(
    analysis_pb2.AnalyzeOptions,
    request_id=TEXT,
    file_name=TEXT,
    policy=TEXT,
    size_bytes=st.integers(0, 2**64 - 1),
    branches=st.lists(st.integers(-5, 12), max_size=20),
)
MESSAGES = st.lists(
    st.one_of(
        st.builds(analysis_pb2.AnalyzeRequest, options=OPTIONS),
        st.builds(analysis_pb2.AnalyzeRequest, chunk=st.binary(max_size=200)),
        st.builds(analysis_pb2.AnalyzeRequest, chunk=st.sampled_from(FILES)),
        st.just(analysis_pb2.AnalyzeRequest()),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(MESSAGES)
def test_any_order_of_messages_is_taken_or_refused_with_a_reason(messages: list[analysis_pb2.AnalyzeRequest]) -> None:
    doors = Doors(documented_reasons())
    try:
        assert doors.enter(Input(0, Kind.STREAM, tuple(message.SerializeToString() for message in messages)))
    finally:
        doors.close()


@pytest.mark.timeout(300)
def test_input_guided_by_coverage_finds_nothing(tmp_path: Path) -> None:
    account = Account(seed=0)
    run_guided(account, 500, tmp_path)
    assert (account.guided, account.crashes, account.hangs) == (500, 0, 0), account.faults
    assert any((tmp_path / "corpus").iterdir())
