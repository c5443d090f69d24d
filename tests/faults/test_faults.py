"""Short faults under load: no request is lost or answered wrong, and the system is whole again by itself."""

from __future__ import annotations

import pytest

from benchmarks.reliability.arena import Arena
from benchmarks.reliability.checker import Ending
from benchmarks.reliability.faults import try_fault
from benchmarks.reliability.injections import faults
from services.common.evidence import Verdict

BY_NAME = {fault.name: fault for fault in faults()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["SIGKILL visual", "SIGKILL gateway-2", "SIGSTOP audio", "resets to gateways"])
def test_every_request_is_accounted_for(arena: Arena, name: str) -> None:
    counts, details = try_fault(arena, BY_NAME[name], rate=2.0, seconds=8.0)
    assert counts["requests"] > 5
    assert (counts[Ending.LOST], counts[Ending.WRONG]) == (0, 0), details
    assert details["recovered_seconds"] is not None


def test_the_quiet_system_answers_every_kind_of_clip(arena: Arena) -> None:
    assert {answer.verdict for answer in arena.quiet.values()} == set(Verdict)
    assert {line.outcome for line in arena.quiet["face and voice"].lines.values()} == {"scored"}
    assert all(finding.ending is Ending.RIGHT for finding in arena.findings(arena.in_turn()))
