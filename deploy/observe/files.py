"""The files that operators install, as they lie here."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent
RULES = DIRECTORY / "rules.yaml"
DASHBOARDS = DIRECTORY / "dashboards"
RUNBOOKS = DIRECTORY.parents[1] / "docs" / "runbooks"

COMPONENT_LABEL = "component"
"""The label that every scrape target must carry: gateway, visual, audio, fusion, triton or triton-NAME."""

RUNBOOKS_URL = "https://runbooks.example/bonafide"
"""Where alerts and dashboards look for the pages of docs/runbooks; an operator replaces it by its own address."""


def installed(runbooks_url: str = RUNBOOKS_URL) -> dict[str, str]:
    """Rules and dashboards to install, for the chart and for anyone else: file name to text.

    ``rules.yaml`` is a Prometheus rules file (its ``groups`` are the ``spec.groups`` of a PrometheusRule); the
    others are Grafana dashboards in JSON.

    Args:
        runbooks_url: the address under which the pages of docs/runbooks are served, without a slash at its end.
    """
    files = [RULES, *sorted(DASHBOARDS.glob("*.json"))]
    return {file.name: file.read_text(encoding="utf-8").replace(RUNBOOKS_URL, runbooks_url) for file in files}
