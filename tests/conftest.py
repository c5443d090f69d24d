"""How the suite is shared out among processes: fixtures that start a system do it once."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares fixtures (``--dist loadgroup``): a directory, or a file of the training's tests."""
    for item in items:
        room, *place = item.path.relative_to(TESTS).parts
        item.add_marker(pytest.mark.xdist_group(place[0] if room == "training" else room))
