"""What is declared, and how it is measured: names, labels, exemplars."""

import re
from collections.abc import Callable
from contextvars import copy_context

import pytest
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bonafide import __version__
from deploy.topology import COMPONENTS, ROOT
from services.common import telemetry as declarations
from services.common.telemetry import (
    BUILD_INFO,
    DECLARED,
    MODEL_INFO,
    REQUEST_DURATION,
    REQUESTS,
    SERVICES,
    STAGE_DURATION,
    VERDICTS,
    Counter,
    Histogram,
    Metric,
    Telemetry,
)
from services.common.tracing import enter_trace


def within_a_trace(flags: str, do: Callable[[], None]) -> None:
    """Do something in a context of its own, within a trace whose flags say so."""

    def enter() -> None:
        enter_trace(None, {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-{flags}"}, "", {})
        do()

    copy_context().run(enter)


def test_every_metric_is_declared_once_and_named_by_the_conventions() -> None:
    found = [value for value in vars(declarations).values() if isinstance(value, Metric)]
    assert len(found) == len(DECLARED)
    assert set(map(id, found)) == set(map(id, DECLARED))
    assert len({metric.name for metric in DECLARED}) == len(DECLARED)
    for metric in DECLARED:
        assert re.fullmatch(r"bonafide_[a-z_]+", metric.name)
        assert isinstance(metric, Counter) == metric.name.endswith("_total")
        assert metric.meaning.endswith(".")
        if isinstance(metric, Histogram):
            assert list(metric.buckets) == sorted(metric.buckets)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a_service_exports_its_own_metrics_and_no_other(service: str) -> None:
    text = generate_latest(Telemetry(service).registry).decode()
    exported = {family.name for family in text_string_to_metric_families(text)}
    mine = {metric.name.removesuffix("_total") for metric in DECLARED if service in metric.services}
    assert {name for name in exported if name.startswith("bonafide_")} == mine
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "python_gc_collections"} <= exported


def test_every_service_there_is_has_metrics_and_the_version_is_the_packages() -> None:
    assert {component.name for component in COMPONENTS} == SERVICES
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    value = Telemetry("audio").registry.get_sample_value(BUILD_INFO.name, {"version": __version__, "service": "audio"})
    assert value == 1


def test_values_arrive_under_their_labels_and_foreign_metrics_are_refused() -> None:
    telemetry = Telemetry("audio")
    telemetry.count(REQUESTS, 2, method="Fuse", code="OK")
    telemetry.observe(REQUEST_DURATION, 0.3, method="Fuse")
    read = telemetry.registry.get_sample_value
    assert read(REQUESTS.name, {"method": "Fuse", "code": "OK"}) == 2
    assert read(REQUEST_DURATION.name + "_bucket", {"method": "Fuse", "le": "0.25"}) == 0
    assert read(REQUEST_DURATION.name + "_bucket", {"method": "Fuse", "le": "0.5"}) == 1
    with pytest.raises(KeyError):
        telemetry.count(VERDICTS, policy="balanced", verdict="AUTHENTIC")
    with pytest.raises(ValueError, match="label"):
        telemetry.count(REQUESTS, method="Fuse")


def test_a_sampled_trace_is_the_exemplar_of_what_happens_in_it() -> None:
    telemetry = Telemetry("audio")
    telemetry.observe(STAGE_DURATION, 0.02, stage="before")

    def measure() -> None:
        telemetry.observe(STAGE_DURATION, 0.02, stage="score")
        telemetry.count(REQUESTS, method="Fuse", code="OK")

    within_a_trace("01", measure)
    within_a_trace("00", lambda: telemetry.observe(STAGE_DURATION, 0.02, stage="unsampled"))
    lines = [line for line in generate_latest(telemetry.registry).decode().splitlines() if " # " in line]
    assert len(lines) == 2
    assert any(line.startswith("bonafide_requests_total{") for line in lines)
    assert any('stage="score"' in line for line in lines)
    assert all(f'trace_id="{0xABC:032x}"' in line for line in lines)


def test_facts_that_no_longer_hold_are_shown_no_more() -> None:
    telemetry = Telemetry("audio")
    telemetry.show_only(MODEL_INFO, {("a", "1", "ab"): 1, ("b", "1", "cd"): 1})
    telemetry.show_only(MODEL_INFO, {("a", "2", "ef"): 1, ("b", "1", "cd"): 1})
    (family,) = [each for each in telemetry.registry.collect() if each.name == MODEL_INFO.name]
    assert {(each.labels["model"], each.labels["version"]) for each in family.samples} == {("a", "2"), ("b", "1")}
