"""Alerts and dashboards as a real helm renders them: those of deploy/observe, with the operator's own links."""

from __future__ import annotations

import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from deploy.helm.render import NEWEST, Object, template, values_file
from deploy.observe.files import RUNBOOKS_URL, installed

LARGEST_OBJECT = 1 << 20
"""What etcd takes, bytes."""
OWN_URL = "https://wiki.example/bonafide"


@pytest.fixture
def objects(helm: Path) -> list[Object]:
    return template(helm, values_file("pools"), "monitoring.dashboards=true", f"monitoring.runbooksUrl={OWN_URL}")


def test_dashboards_are_those_of_the_repository(objects: list[Object]) -> None:
    found = {}
    for each in objects:
        if each["kind"] == "ConfigMap" and each["metadata"]["labels"].get("grafana_dashboard") == "1":
            kubernetes_validate.validate(each, NEWEST.rpartition(".")[0], strict=True)
            assert len(json.dumps(each)) < LARGEST_OBJECT
            found |= each["data"]
    wanted = {name: text for name, text in installed(OWN_URL).items() if name.endswith(".json")}
    assert wanted
    assert {name: json.loads(text) for name, text in found.items()} == {
        name: json.loads(text) for name, text in wanted.items()
    }


def test_rules_are_those_of_the_repository(objects: list[Object]) -> None:
    (rules,) = (each for each in objects if each["kind"] == "PrometheusRule")
    assert rules["spec"] == yaml.safe_load(installed(OWN_URL)["rules.yaml"])
    assert RUNBOOKS_URL not in json.dumps(objects)


def test_rules_and_dashboards_can_be_left_out(helm: Path) -> None:
    left = template(helm, values_file("pools"), "monitoring.rules=false", "monitoring.podMonitor=false")
    assert not {each["kind"] for each in left} & {"PrometheusRule", "PodMonitor"}
    assert not [each for each in left if each["metadata"]["name"].startswith("bonafide-dashboard")]
