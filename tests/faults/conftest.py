"""The system under test, started once: real processes over tiny graphs, two gateways, every link cuttable."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.reliability.arena import Arena, ArenaOptions


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(ArenaOptions(directory=tmp_path_factory.mktemp("arena"))) as running:
        yield running
