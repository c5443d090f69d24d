"""Writes the compose files from the topology: ``python -m deploy.compose.render``."""

from __future__ import annotations

import copy
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from deploy.helm.documented_values import VALUES
from deploy.images.roles import IMAGES
from deploy.topology import (
    COMPONENTS,
    METRICS_PORT,
    ROOT,
    TRITON,
    TRITON_GRPC_PORT,
    TRITON_METRICS_PORT,
    Component,
    wiring,
)
from services.common.settings import EngineChoice

HERE = Path(__file__).parent
MODELS = PurePosixPath("/models")
SPOOL = "/spool"
ROLLOUT = "/rollout"
GPU_IMAGE = "nvcr.io/nvidia/tritonserver:25.08-py3"
_HEAD = "# Written by `python -m deploy.compose.render`; edit that, or deploy/topology.py.\n"
_RESET = "!reset null"  # an overlay takes a key away by this tag, which needs Compose 2.24
_SECURITY: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "tmpfs": ["/tmp:size=1g,mode=1777"],  # noqa: S108 - inside the container
    "restart": "unless-stopped",
}
_ASK_HEALTH = (
    "import grpc, sys; from grpc_health.v1 import health_pb2 as p, health_pb2_grpc as s; "
    "stub = s.HealthStub(grpc.insecure_channel('127.0.0.1:{port}')); "
    "answer = stub.Check(p.HealthCheckRequest(service='{name}'), timeout=2); "
    "sys.exit(answer.status != p.HealthCheckResponse.SERVING)"
)


def files() -> dict[Path, str]:
    """What each compose file should hold."""
    services = {TRITON: _triton(), **{component.name: _service(component) for component in COMPONENTS}}
    whole = {"name": "bonafide", "services": services, "networks": {"inside": {"internal": True}, "outside": {}}}
    return {HERE / "compose.yaml": _text(whole), HERE / "compose.gpu.yaml": _text({"services": {TRITON: _gpu()}})}


def _service(component: Component) -> dict[str, Any]:
    gateway = component.name == "gateway"
    listen = f"0.0.0.0:{component.port}"
    ask = _ASK_HEALTH.format(port=component.port, name=component.grpc_name)
    spool = {"tmpfs": [*_SECURITY["tmpfs"], f"{SPOOL}:size=5g,mode=1777"]} if gateway else {}
    ports = {"ports": [f"127.0.0.1:{component.port}:{component.port}"]} if gateway else {}
    return {
        **_image(component.name),
        "environment": {
            **wiring(component, _address, listen, MODELS, EngineChoice.TRITON, allow_plaintext=True),
            **_chart_settings(component),
            f"{component.prefix}METRICS_LISTEN": f"0.0.0.0:{METRICS_PORT}",
            f"{component.prefix}ROLLOUT_FILE": f"{ROLLOUT}/rollout.json",
        },
        "volumes": [f"../../model_repository:{MODELS}:ro", f"./rollout:{ROLLOUT}:ro"],
        "networks": ["inside", "outside"] if gateway else ["inside"],
        **ports,
        "stop_grace_period": "30s",
        "healthcheck": {
            "test": ["CMD", "/opt/venv/bin/python", "-c", ask],
            "interval": "5s",
            "timeout": "3s",
            "start_period": "60s",
            "start_interval": "1s",
        },
        **copy.deepcopy(_SECURITY),
        **spool,
    }


def _chart_settings(component: Component) -> dict[str, str]:
    """The settings that the chart gives by default."""
    values = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    settings = dict(values[component.name]["settings"])
    if component.name == "gateway":
        settings["spool_directory"] = SPOOL
    if component.runs_models:
        settings["triton_shared_regions"] = 0  # containers have no /dev/shm in common
    return {component.prefix + name.upper(): str(value) for name, value in settings.items()}


def _triton() -> dict[str, Any]:
    return {
        **_image("triton-cpu"),
        "command": [
            *server_arguments(),
            "--backend-directory=/opt/bonafide/backends",
            "--backend-config=python,shm-region-prefix-name=bonafide-",
            "--allow-gpu-metrics=false",
            "--allow-cpu-metrics=false",
        ],
        "volumes": [f"../../model_repository:{MODELS}:ro"],
        "networks": ["inside"],
        "shm_size": "1g",
        "stop_grace_period": "30s",
        **copy.deepcopy(_SECURITY),
    }


def _gpu() -> dict[str, Any]:
    devices = [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    return {
        "image": GPU_IMAGE,
        "build": _RESET,
        "user": "1000:1000",
        "entrypoint": ["tritonserver"],
        "command": server_arguments(),
        "deploy": {"resources": {"reservations": {"devices": devices}}},
    }


def server_arguments() -> list[str]:
    """What tritonserver is told everywhere: explicit loading of the models that have a config."""
    models = sorted(config.parent.name for config in (ROOT / "model_repository").glob("*/config.pbtxt"))
    return [
        f"--model-repository={MODELS}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        "--allow-http=false",
        f"--grpc-port={TRITON_GRPC_PORT}",
        f"--metrics-port={TRITON_METRICS_PORT}",
        "--exit-timeout-secs=20",
    ]


def _image(role: str) -> dict[str, Any]:
    dockerfile = (IMAGES / f"{role}.Dockerfile").relative_to(ROOT)
    return {"image": f"bonafide-{role}", "build": {"context": "../..", "dockerfile": str(dockerfile)}}


def _address(name: str) -> str:
    ports = {component.name: component.port for component in COMPONENTS}
    return f"{name}:{ports.get(name, TRITON_GRPC_PORT)}"


def _text(content: dict[str, Any]) -> str:
    return _HEAD + yaml.safe_dump(content, sort_keys=False, width=118).replace(f"'{_RESET}'", _RESET)


if __name__ == "__main__":
    for file, content in files().items():
        file.write_text(content, encoding="utf-8")
