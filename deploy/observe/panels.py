"""The kinds of panels that our dashboards are made of, over Grafana's own builders (grafana-foundation-sdk).

Every panel asks the data source that the reader has chosen, names its unit and its series, and links to the
pages that say what to do when it looks wrong.
"""

# ruff: noqa: FBT003 - the builders of Grafana take their switches by position

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.observe.files import RUNBOOKS_URL

SOURCE = DataSourceRef("prometheus", "${datasource}")
SECONDS, SHARE, COUNT, PER_SECOND, BYTES, DOLLARS = "s", "percentunit", "short", "ops", "bytes", "currencyUSD"
GREEN, YELLOW, RED = "green", "yellow", "red"
HEIGHT = 8

Panel = timeseries.Panel | stat.Panel | heatmap.Panel | table.Panel
_Panel = TypeVar("_Panel", timeseries.Panel, stat.Panel, heatmap.Panel, table.Panel)


@dataclass(frozen=True, slots=True)
class Query:
    """One expression, and what its series are called (a template over labels).

    ``exemplar`` shows single traces as points.
    """

    expression: str
    legend: str
    exemplar: bool = False

    def built(self, number: int) -> prometheus.Dataquery:
        """As Grafana asks it; ``number`` from 0 tells the queries of a panel apart."""
        query = prometheus.Dataquery().expr(self.expression).legend_format(self.legend).ref_id(chr(ord("A") + number))
        return query.datasource(SOURCE).exemplar(self.exemplar)


def graph(
    title: str,
    unit: str,
    queries: Sequence[Query],
    description: str,
    *,
    pages: Sequence[str] = (),
    limit: float | None = None,
    stacked: bool = False,
    width: int = 8,
) -> timeseries.Panel:
    """Lines over time; ``limit`` is where it begins to look wrong."""
    panel = _titled(timeseries.Panel(), title, unit, description, pages, width).min(0)
    legend = common.VizLegendOptions().display_mode(shapes.LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"])
    panel.legend(legend.placement(shapes.LegendPlacement.BOTTOM).show_legend(True))
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    panel.line_width(1).fill_opacity(30 if stacked else 5).show_points(shapes.VisibilityMode.NEVER)
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    if limit is not None:
        panel.thresholds(_steps((RED, limit)))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED))
    for number, query in enumerate(queries):
        panel.with_target(query.built(number).range())
    return panel


def number(
    title: str,
    unit: str,
    query: Query,
    description: str,
    *,
    pages: Sequence[str] = (),
    warn: float | None = None,
    alarm: float | None = None,
    width: int = 4,
) -> stat.Panel:
    """The value now, coloured from where it is worth a look (``warn``) and where it is wrong (``alarm``)."""
    panel = _titled(stat.Panel(), title, unit, description, pages, width).height(5)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.color_mode(shapes.BigValueColorMode.VALUE).graph_mode(shapes.BigValueGraphMode.AREA)
    marks = [(colour, value) for colour, value in ((YELLOW, warn), (RED, alarm)) if value is not None]
    if marks:
        panel.thresholds(_steps(*marks))
    return panel.with_target(query.built(0).range())


def heat(
    title: str, unit: str, expression: str, description: str, *, pages: Sequence[str] = (), width: int = 8
) -> heatmap.Panel:
    """A histogram over time; the expression gives rates of buckets by ``le``. Points are single traces."""
    panel = _titled(heatmap.Panel(), title, unit, description, pages, width)
    panel.calculate(False).cell_gap(1).show_legend().show_y_histogram()
    panel.color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).exponent(0.5))
    panel.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(shapes.AxisPlacement.LEFT))
    panel.exemplars_color("rgba(31,120,193,0.7)")
    query = Query(expression, "{{le}}", exemplar=True).built(0).range().format(PromQueryFormat.HEATMAP)
    return panel.with_target(query)


def listing(title: str, query: Query, description: str, *, pages: Sequence[str] = (), width: int = 24) -> table.Panel:
    """The labels of the series of a query, one row each."""
    panel = _titled(table.Panel(), title, COUNT, description, pages, width)
    hidden = {"excludeByName": {"Time": True, "Value": True, "__name__": True}}
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=hidden))
    return panel.with_target(query.built(0).instant().format(PromQueryFormat.TABLE))


def board(
    uid: str, title: str, description: str, variables: Sequence[dashboard.TextBoxVariable] = ()
) -> dashboard.Dashboard:
    """An empty dashboard with the choice of data source and release, and links to the others."""
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    everything = VariableOption(selected=True, text="All", value="$__all")
    release = dashboard.QueryVariable("namespace").label("Namespace").datasource(SOURCE)
    release.query({"query": "label_values(bonafide_build_info, namespace)", "refId": "namespace"})
    release.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".*").current(
        everything
    )
    others = dashboard.DashboardLink("Bonafide").type(DashboardLinkType.DASHBOARDS).tags(["bonafide"])
    made = dashboard.Dashboard(f"Bonafide: {title}").uid(uid).description(description).tags(["bonafide"]).readonly()
    made.link(others.as_dropdown(True).include_vars(True).keep_time(True))
    made.tooltip(DashboardCursorSync.CROSSHAIR).time("now-3h", "now").refresh("30s").timezone("browser")
    made.with_variable(source).with_variable(release)
    for variable in variables:
        made.with_variable(variable)
    return made


def row(made: dashboard.Dashboard, title: str, panels: Sequence[Panel]) -> None:
    """Add a row of panels to a dashboard."""
    made.with_row(dashboard.Row(title))
    for panel in panels:
        made.with_panel(panel)


def rendered(made: dashboard.Dashboard) -> str:
    """The dashboard as JSON, panels numbered."""
    built = made.build()
    for position, panel in enumerate(built.panels or [], start=1):
        panel.id_val = position
    return json.dumps(built, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _titled(panel: _Panel, title: str, unit: str, description: str, pages: Sequence[str], width: int) -> _Panel:
    links: list[dashboard.DashboardLink] = []
    for page in pages:
        link = dashboard.DashboardLink(f"Runbook: {page}").type(DashboardLinkType.LINK)
        links.append(link.url(f"{RUNBOOKS_URL}/{page}.md").target_blank(True))
    panel.title(title).description(description).datasource(SOURCE).unit(unit).span(width).height(HEIGHT)
    panel.links([*links])
    return panel


def _steps(*marks: tuple[str, float]) -> dashboard.ThresholdsConfig:
    steps = [Threshold(None, GREEN), *(Threshold(value, colour) for colour, value in marks)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
