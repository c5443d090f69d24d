"""The pinned helms and the matrix; the environment of these tests is requirements/chart.txt."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.helm.render import CASES
from deploy.helm.tools import HELMS, Tool


@pytest.fixture(scope="session", params=HELMS, ids=lambda helm: f"helm-{helm.version}")
def helm(request: pytest.FixtureRequest) -> Path:
    each: Tool = request.param
    if not each.binary.is_file():
        pytest.fail("helm is not there: python -m deploy.helm.tools")
    return each.binary


@pytest.fixture(scope="session", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param
