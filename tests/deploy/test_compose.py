"""Compose, the chart and ``bonafide up`` are one stack: the same settings, wired the same way."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.compose.render import HERE, files, server_arguments
from deploy.helm.documented_values import VALUES
from deploy.helm.render import golden
from deploy.local.triton import TritonInstallation, TritonPlan
from deploy.topology import COMPONENTS, TRITON, Component
from tests.deploy import rendered

CHART_ONLY = {"DRAIN_SECONDS", "DRAIN_NOTICE_SECONDS", "HEALTH_LISTEN", "LOG_FORMAT"}


@pytest.fixture
def compose() -> dict:
    return yaml.safe_load((HERE / "compose.yaml").read_text())


@pytest.mark.parametrize("file", files(), ids=lambda file: file.name)
def test_files_are_current(file: Path) -> None:
    assert file.read_text() == files()[file], "run: python -m deploy.compose.render"


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_compose_and_chart_give_the_same_settings(component: Component, compose: dict) -> None:
    in_compose = compose["services"][component.name]["environment"]
    in_chart = rendered.environment(rendered.pods(golden("cpu"))[component.name])
    extra = {component.prefix + name for name in CHART_ONLY}
    assert {name: host(value) for name, value in in_compose.items()} == {
        name: host(value).replace("triton-all", TRITON) for name, value in in_chart.items() if name not in extra
    }


def host(value: str) -> str:
    """An address without what the cluster adds to a name."""
    return value.replace(".trust.svc.cluster.local", "").replace("bonafide-", "")


def test_the_gpu_overlay_changes_only_triton() -> None:
    text = (HERE / "compose.gpu.yaml").read_text()
    assert "build: !reset null" in text  # or Compose would build the CPU image under NVIDIA's name
    overlay = yaml.safe_load(text.replace("!reset ", ""))
    assert overlay["services"][TRITON]["image"] == yaml.safe_load(VALUES.read_text())["triton"]["image"]
    assert overlay["services"].keys() == {TRITON}
    assert not [each for each in overlay["services"][TRITON]["command"] if "backend" in each]


def test_only_the_gateway_is_reachable_from_outside(compose: dict) -> None:
    for name, service in compose["services"].items():
        assert ("outside" in service["networks"]) == (name == "gateway")
        assert ("ports" in service) == (name == "gateway")
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert compose["networks"]["inside"] == {"internal": True}
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["gateway"]["ports"])


def test_triton_is_told_the_same_everywhere(compose: dict) -> None:
    """The flags of the local stack, of compose and of the chart's CPU pool, but for their paths, ports and patience."""
    nowhere = TritonInstallation(Path("python"), Path("packages"), Path("lib"), "3.11")
    models = [each.partition("=")[2] for each in server_arguments() if each.startswith("--load-model=")]
    local = TritonPlan(nowhere, Path("/models"), models, Path("b"), 1, 2, "bonafide-").command()[1:]
    own_machine = {"--grpc-address", "--metrics-address"}
    in_chart = rendered.pods(golden("cpu"))["triton-all"]["spec"]["containers"][0]["args"]  # triton.defaults.models
    in_compose = compose["services"][TRITON]["command"]
    ages = {each for each in shape(in_chart) if "connection-age" in each[0]}  # so that callers find new pods
    assert len(ages) == 2
    assert shape(in_compose) == shape(in_chart) - ages == {each for each in shape(local) if each[0] not in own_machine}


def shape(arguments: list[str]) -> set[tuple[str, str]]:
    """Flags with their values, where these are not the machine's own."""
    pairs = [argument.partition("=") for argument in arguments]
    own = {"--model-repository", "--backend-directory", "--grpc-port", "--metrics-port", "--exit-timeout-secs"}
    return {(name, "" if name in own | {"--grpc-address", "--metrics-address"} else value) for name, _, value in pairs}
