"""Who runs, where it listens and whom it calls: the one source of ``bonafide up``, compose and the chart.

The chart reads it as ``deploy/helm/bonafide/files/topology.json``, which ``python -m deploy.helm.generate``
writes; tests hold the three in step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from services.audio.settings import AudioSettings
from services.common.model_service import ModelServiceSettings
from services.common.settings import EngineChoice, ServiceSettings
from services.fusion.settings import FusionSettings
from services.gateway.settings import GatewaySettings
from services.visual.settings import VisualSettings

ROOT = Path(__file__).resolve().parents[1]
TRITON = "triton"
TRITON_GRPC_PORT = 8001
TRITON_METRICS_PORT = 8002
HEALTH_PORT = 8590
"""Where probes ask, in plain text, what carries nothing else."""
METRICS_PORT = 9464
"""Where Prometheus reads the metrics of a service, in plain text; the port that its exporters have by custom."""


@dataclass(frozen=True, slots=True)
class Component:
    """One service: its settings, its port, its full gRPC name, and the services it calls.

    ``peers`` maps a setting (``VISUAL_ADDRESS``) to the service whose address it takes.
    """

    name: str
    settings: type[ServiceSettings]
    port: int
    grpc_name: str
    peers: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """What its environment variables begin with."""
        return str(self.settings.model_config.get("env_prefix", ""))

    @property
    def runs_models(self) -> bool:
        """Whether it calls Triton."""
        return issubclass(self.settings, ModelServiceSettings)

    def variables(self) -> dict[str, str]:
        """Its settings by environment variable: name of the variable to name of the field."""
        return {f"{self.prefix}{name.upper()}": name for name in self.settings.model_fields}

    def calls(self) -> tuple[str, ...]:
        """Everything that it opens connections to."""
        return (*self.peers.values(), *((TRITON,) if self.runs_models else ()))


COMPONENTS = (
    Component("visual", VisualSettings, 8501, "bonafide.v1.VisualService"),
    Component("audio", AudioSettings, 8502, "bonafide.v1.AudioService"),
    Component("fusion", FusionSettings, 8503, "bonafide.v1.FusionService"),
    Component(
        "gateway",
        GatewaySettings,
        8500,
        "bonafide.v1.AnalysisService",
        peers={"VISUAL_ADDRESS": "visual", "AUDIO_ADDRESS": "audio", "FUSION_ADDRESS": "fusion"},
    ),
)
"""The services, each after those that it calls."""


def wiring(
    component: Component,
    address: Callable[[str], str],
    listen: str,
    models: PurePosixPath,
    engine: EngineChoice,
    *,
    allow_plaintext: bool = False,
) -> dict[str, str]:
    """The environment that connects a service: where it listens, whom it calls, where its models are.

    Args:
        component: the service.
        address: HOST:PORT of a component by name; asked for ``triton`` only when the engine is Triton.
        listen: HOST:PORT to listen on.
        models: directory of the model repository, as the service sees it.
        engine: where networks run.
        allow_plaintext: say that calls may leave the machine without TLS, and that callers need show nothing;
            not needed on loopback.
    """
    settings = {"LISTEN": listen, "MODEL_REPOSITORY": str(models)}
    if allow_plaintext:
        settings["ALLOW_PLAINTEXT"] = "true"
        if not component.runs_models:
            settings["ALLOW_ANONYMOUS"] = "true"
    settings |= {name: address(peer) for name, peer in component.peers.items()}
    if component.runs_models:
        settings["ENGINE"] = engine.value
        settings["TRITON_ADDRESS"] = address(TRITON) if engine is EngineChoice.TRITON else ""
    return {component.prefix + name: value for name, value in settings.items()}


def as_json() -> dict[str, object]:
    """What the chart needs of it."""
    components = {
        each.name: {
            "port": each.port,
            "grpcName": each.grpc_name,
            "prefix": each.prefix,
            "peers": dict(each.peers),
            "runsModels": each.runs_models,
        }
        for each in COMPONENTS
    }
    return {
        "components": components,
        "health": HEALTH_PORT,
        "metrics": METRICS_PORT,
        "triton": {"grpc": TRITON_GRPC_PORT, "metrics": TRITON_METRICS_PORT},
    }
