"""Attacks on a running gateway: it answers others right meanwhile and holds nothing afterwards."""

from __future__ import annotations

import pytest

from benchmarks.reliability.arena import Arena
from benchmarks.reliability.malice import Attacker, attack, trials

SHORT = [
    "half an HTTP/2 preface",
    "HTTP/2 ping flood",
    "header injection",
    "1 MB of metadata",
    "a chunk of 32 MiB",
    "paths as file_name",
    "pixel bomb, 256 megapixels",
    "comment bomb in a PNG, 512 MB",
    "header bomb in a MOV, 512 MB",
    "duration bomb, 1,000 h",
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHORT)
def test_an_attack_leaves_nothing_behind(arena: Arena, name: str) -> None:
    still = next(sample.body for sample in arena.samples if sample.name == "no face")
    trial = next(trial for trial in trials(Attacker(still)) if trial.name == name)
    row = attack(arena, trial)
    assert row["others_right"], row
    assert row["back_at_baseline"], row
