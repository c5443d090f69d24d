"""The dashboards are what Grafana takes, and a reader can tell what each panel shows."""

from __future__ import annotations

import json

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observe.files import RUNBOOKS_URL
from tests.observe.expressions import dashboards, page_path, panels

BOARDS = dashboards()
PANELS = list(panels())


def lost(ours: object, read: object, place: str = "") -> list[str]:
    """Where something of ours is not in what was read; what a reader adds by itself does not matter."""
    if isinstance(ours, dict) and isinstance(read, dict):
        pairs = [(value, read.get(key), f"{place}/{key}") for key, value in ours.items()]
    elif isinstance(ours, list) and isinstance(read, list) and len(ours) == len(read):
        pairs = [(*both, f"{place}/{index}") for index, both in enumerate(zip(ours, read, strict=True))]
    else:
        return [] if ours == read else [place]
    return [each for one, other, where in pairs for each in lost(one, other, where)]


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_own_model_keeps_every_key(name: str) -> None:
    register_default_plugins()
    read = json.loads(json.dumps(Dashboard.from_json(BOARDS[name]), cls=JSONEncoder))
    assert lost(BOARDS[name], read) == []
    assert lost({**BOARDS[name], "made_up": 1}, read) == ["/made_up"]


def test_dashboards_are_told_apart_and_linked() -> None:
    assert set(BOARDS) == {"fleet", "latency", "models", "capacity"}
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    for board in BOARDS.values():
        assert board["tags"] == ["bonafide"]
        assert [variable["name"] for variable in board["templating"]["list"]][:2] == ["datasource", "namespace"]
        assert board["templating"]["list"][0]["type"] == "datasource"


@pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS], ids=[f"{name}: {panel['title']}" for name, panel in PANELS]
)
def test_a_panel_says_what_it_shows(panel: dict) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    for target in panel["targets"]:
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert target["legendFormat"] or panel["type"] == "table"
        if "histogram_quantile" in target["expr"] and "duration_seconds" in target["expr"]:
            assert target["exemplar"]
    for link in panel.get("links", []):
        assert page_path(link["url"], RUNBOOKS_URL).is_file()


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_lie_on_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_scores_are_shown_as_heatmaps() -> None:
    drawn = {panel["title"] for name, panel in PANELS if name == "models" and panel["type"] == "heatmap"}
    assert {"patch", "frame", "temporal", "audio", "sync"} <= drawn
