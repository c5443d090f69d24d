"""Metrics in the accepted manifests: who is scraped and by whom, and that what scales is really exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.helm.documented_values import CHART, VALUES
from deploy.helm.render import CASES, golden
from deploy.local.triton import TritonInstallation, TritonPlan
from deploy.observe.files import COMPONENT_LABEL
from deploy.topology import COMPONENTS, METRICS_PORT, ROOT, TRITON_METRICS_PORT
from services.common.telemetry import DECLARED
from tests.deploy import rendered
from tests.deploy.commands import values_files
from tests.deploy.rendered import Object

ADAPTER = CHART.parent / "prometheus-adapter-values.yaml"
PREFIXES = {component.name: component.prefix for component in COMPONENTS}
OF_TRITON = {"nv_inference_pending_request_count", "nv_inference_queue_duration_us", "nv_inference_request_success"}
MONITORED = [case for case in CASES if rendered.of_kind(golden(case), "PodMonitor")]


@pytest.fixture(scope="module", params=CASES)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return golden(request.param)


@pytest.fixture
def pods(objects: list[Object]) -> dict[str, Object]:
    return rendered.pods(objects)


def exported_by(component: str) -> set[str]:
    """Names of metrics, as the services declare them; Triton's are those of its documentation that are used here."""
    return OF_TRITON if component not in PREFIXES else {each.name for each in DECLARED if component in each.services}


def metrics_port(component: str) -> int:
    return METRICS_PORT if component in PREFIXES else TRITON_METRICS_PORT


def pod_metrics(objects: list[Object]) -> dict[str, list[str]]:
    """Metrics of pods by which each component is scaled."""
    return {
        scaler["metadata"]["labels"]["app.kubernetes.io/component"]: [
            metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods"
        ]
        for scaler in rendered.of_kind(objects, "HorizontalPodAutoscaler")
    }


def allowed(objects: list[Object], word: str, peer_word: str) -> set[tuple[str, int]]:
    """Components and ports between which and the monitoring namespace the network policies let calls through."""
    everyone = rendered.pods(objects)
    return {
        (name, port["port"])
        for policy in rendered.of_kind(objects, "NetworkPolicy")
        for rule in policy["spec"].get(word, [])
        if any("monitoring" in str(peer.get("namespaceSelector")) for peer in rule[peer_word])
        for name, pod in everyone.items()
        if rendered.selects(policy["spec"]["podSelector"], pod)
        for port in rule["ports"]
    }


def scraped(objects: list[Object]) -> set[tuple[str, int]]:
    """Components and ports that scrapers reach."""
    return allowed(objects, "ingress", "from")


def test_every_service_listens_for_scrapers_on_a_port_that_the_pod_names(pods: dict[str, Object]) -> None:
    for component in pods.keys() - {"test"}:
        assert rendered.ports(pods[component])["metrics"] == metrics_port(component)
        if component in PREFIXES:
            listen = rendered.environment(pods[component])[f"{PREFIXES[component]}METRICS_LISTEN"]
            assert listen == f"0.0.0.0:{METRICS_PORT}"


def test_a_monitor_finds_every_pod_that_exports_metrics(objects: list[Object], pods: dict[str, Object]) -> None:
    for monitor in rendered.of_kind(objects, "PodMonitor"):
        found = {name for name, pod in pods.items() if rendered.selects(monitor["spec"]["selector"], pod)}
        assert found == pods.keys() - {"test"}
        assert all(monitor["spec"]["jobLabel"] in pods[name]["metadata"]["labels"] for name in found)
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert {each["targetLabel"] for each in endpoint["relabelings"]} == {COMPONENT_LABEL}
            assert all(endpoint["port"] in rendered.ports(pods[name]) for name in found)
            assert endpoint["path"] == "/metrics"


def test_scrapers_reach_the_metrics_and_nothing_else(objects: list[Object], pods: dict[str, Object]) -> None:
    wanted = {(name, metrics_port(name)) for name in pods.keys() - {"test"}}
    assert scraped(objects) == (wanted if rendered.of_kind(objects, "PodMonitor") else set())


def test_some_case_monitors_and_some_does_not() -> None:
    assert 0 < len(MONITORED) < len(CASES)


def test_spans_go_where_the_operator_says_and_the_network_lets_them(
    objects: list[Object], pods: dict[str, Object]
) -> None:
    wanted = set()
    for component in pods.keys() - {"test"}:
        container = pods[component]["spec"]["containers"][0]
        if component in PREFIXES:
            url = rendered.environment(pods[component]).get(f"{PREFIXES[component]}OTLP_ENDPOINT", "")
        else:
            flag = "--trace-config=opentelemetry,url="
            url = next((each.removeprefix(flag) for each in container["args"] if each.startswith(flag)), "")
        wanted |= {(component, urlsplit(url).port)} if url else set()
    assert allowed(objects, "egress", "to") == wanted


def test_some_case_sends_spans_of_services_and_of_triton() -> None:
    senders = {name for name, _ in allowed(golden("pools"), "egress", "to")}
    assert senders == rendered.pods(golden("pools")).keys() - {"test"}
    assert {name for name, _ in allowed(golden("mtls"), "egress", "to")} == PREFIXES.keys()


def test_triton_traces_as_the_local_one_does() -> None:
    nowhere = TritonInstallation(Path("python"), Path("packages"), Path("lib"), "3.11")
    url = "http://otel-collector.monitoring:4318/v1/traces"
    local = TritonPlan(nowhere, Path("/models"), [], Path("b"), 1, 2, "bonafide-", otlp_url=url).command()
    in_chart = rendered.pods(golden("pools"))["triton-vision"]["spec"]["containers"][0]["args"]
    flags = [[each for each in command if each.startswith("--trace-config=")] for command in (local, in_chart)]
    assert flags[0] == flags[1] != []


def test_what_scales_a_component_is_exported_by_it(objects: list[Object]) -> None:
    for component, names in pod_metrics(objects).items():
        assert set(names) <= exported_by(component)
    for scaler in rendered.of_kind(objects, "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            asked = set(re.findall(r"\b(?:nv|bonafide)_\w+", trigger["metadata"].get("query", "")))
            assert asked <= exported_by(scaler["metadata"]["labels"]["app.kubernetes.io/component"])


def test_what_scales_by_metrics_can_be_scraped(objects: list[Object]) -> None:
    measured = {component for component, names in pod_metrics(objects).items() if names}
    measured |= {
        each["metadata"]["labels"]["app.kubernetes.io/component"] for each in rendered.of_kind(objects, "ScaledObject")
    }
    assert measured <= {component for component, _ in scraped(objects)}


def test_the_adapter_serves_every_metric_of_pods_that_scales() -> None:
    rules: list[dict[str, Any]] = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    served = {rule["seriesQuery"].partition("{")[0] for rule in rules}
    asked = {name for case in CASES for names in pod_metrics(golden(case)).values() for name in names}
    assert asked == served
    for rule in rules:
        assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
        assert "sum(" in rule["metricsQuery"]


def test_the_example_collector_listens_where_the_page_sends_and_keeps_what_services_would() -> None:
    collector = yaml.safe_load((CHART.parent / "otel-collector.yaml").read_text())
    page = values_files((ROOT / "docs" / "operations.md").read_text(encoding="utf-8"))["platform.yaml"]
    given = yaml.safe_load(page)["tracing"]
    listens = collector["receivers"]["otlp"]["protocols"]
    ports = {urlsplit(f"//{each['endpoint']}").port for each in listens.values()}
    assert ports == {urlsplit(given[name]).port for name in ("endpoint", "tritonEndpoint")}
    policies = {each["type"]: each[each["type"]] for each in collector["processors"]["tail_sampling"]["policies"]}
    usual = yaml.safe_load(VALUES.read_text())["tracing"]
    assert policies["latency"]["threshold_ms"] == usual["slowSeconds"] * 1000
    assert policies["probabilistic"]["sampling_percentage"] == usual["sampleRatio"] * 100
    pipeline = collector["service"]["pipelines"]["traces"]
    assert all(set(pipeline[kind]) <= collector[kind].keys() for kind in ("receivers", "processors", "exporters"))
