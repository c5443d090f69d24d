"""What the accepted manifests promise, object against object; needs no cluster and no helm."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from deploy.helm.render import CASES, NAMESPACE, RELEASE, golden
from deploy.topology import COMPONENTS, TRITON_GRPC_PORT, wiring
from services.common.settings import EngineChoice
from services.fusion.synchrony import SYNC_MODEL
from services.visual.pipeline import OPTIONAL_MODELS, REQUIRED_MODELS
from tests.deploy import rendered
from tests.deploy.rendered import Object

PEERS = {component.name: component for component in COMPONENTS}
SPOOF_MODEL = "spoof_classifier"
USED_MODELS = {"visual": {*REQUIRED_MODELS, *OPTIONAL_MODELS}, "audio": {SPOOF_MODEL}, "fusion": {SYNC_MODEL}}


@pytest.fixture(scope="module", params=CASES)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return golden(request.param)


@pytest.fixture
def pods(objects: list[Object]) -> dict[str, Object]:
    return rendered.pods(objects)


def address(component: str, port: int) -> str:
    return f"{RELEASE}-{component}.{NAMESPACE}.svc.cluster.local:{port}"


def triton_of(pod: Object, prefix: str) -> str:
    """The component of the Triton pool that a service calls."""
    called = rendered.environment(pod)[f"{prefix}TRITON_ADDRESS"]
    return called.partition(".")[0].removeprefix(f"{RELEASE}-")


def test_every_variable_is_a_setting_and_the_settings_accept_it(pods: dict[str, Object], monkeypatch: Any) -> None:
    for component in COMPONENTS:
        given = rendered.environment(pods[component.name])
        assert given.keys() <= component.variables().keys()
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        component.settings()


def test_services_are_wired_as_the_local_stack_is(pods: dict[str, Object]) -> None:
    for component in COMPONENTS:
        given = rendered.environment(pods[component.name])

        def dialled(peer: str, mine: Any = component) -> str:
            if peer in PEERS:
                return address(peer, PEERS[peer].port)
            return address(triton_of(pods[mine.name], mine.prefix), TRITON_GRPC_PORT)

        listen = f"0.0.0.0:{component.port}"
        models, plain = PurePosixPath("/models"), f"{component.prefix}TLS_CERTIFICATE" not in given
        wired = wiring(component, dialled, listen, models, EngineChoice.TRITON, allow_plaintext=plain)
        if f"{component.prefix}API_KEYS" in given:
            del wired[f"{component.prefix}ALLOW_ANONYMOUS"]
        assert wired.items() <= given.items()


def test_the_pool_that_a_service_calls_loads_its_models(pods: dict[str, Object]) -> None:
    for component in COMPONENTS:
        if component.runs_models:
            pool = pods[triton_of(pods[component.name], component.prefix)]
            arguments = pool["spec"]["containers"][0]["args"]
            assert "--model-control-mode=explicit" in arguments
            loaded = {each.partition("=")[2] for each in arguments if each.startswith("--load-model=")}
            assert USED_MODELS[component.name] <= loaded


def test_probes_ask_ports_and_health_names_that_exist(pods: dict[str, Object]) -> None:
    names = {component.name: {"liveness", component.grpc_name} for component in COMPONENTS}
    for component, pod in pods.items():
        if component == "test":
            continue
        container = pod["spec"]["containers"][0]
        open_ports = rendered.ports(pod)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "exec" in container[probe]:  # Triton, whose port asks for a certificate
                assert "--grpc-use-ssl-mutual=true" in container["args"]
                port = next(each for each in container["args"] if each.startswith("--http-port=")).partition("=")[2]
                assert f"http://127.0.0.1:{port}/" in container[probe]["exec"]["command"][-1]
                assert "--http-address=127.0.0.1" in container["args"]
            elif "grpc" in container[probe]:
                assert container[probe]["grpc"]["port"] in open_ports.values()
                assert container[probe]["grpc"]["service"] in names.get(component, {""})
            else:
                assert container[probe]["httpGet"]["port"] in open_ports
        if component in names:
            assert container["readinessProbe"]["grpc"]["service"] == PEERS[component].grpc_name
            assert container["livenessProbe"]["grpc"]["service"] == "liveness"
            listens = rendered.environment(pod)[f"{PEERS[component].prefix}HEALTH_LISTEN"]
            assert container["livenessProbe"]["grpc"]["port"] == int(listens.rpartition(":")[2])


def test_scalers_target_deployments_that_leave_their_replicas_alone(objects: list[Object]) -> None:
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in rendered.of_kind(objects, kind):
            target = scaler["spec"]["scaleTargetRef"]
            deployment = rendered.named(objects, target["kind"], target["name"])
            assert "replicas" not in deployment["spec"]
            container = deployment["spec"]["template"]["spec"]["containers"][0]
            assert "cpu" in container["resources"]["requests"]


def test_a_pool_that_may_sleep_has_something_that_wakes_it(objects: list[Object]) -> None:
    for scaler in rendered.of_kind(objects, "ScaledObject"):
        if scaler["spec"]["minReplicaCount"] == 0:
            assert {"cron", "prometheus"} <= {each["type"] for each in scaler["spec"]["triggers"][1:]}


def test_budgets_let_a_drain_go_on_and_never_stop_the_last_pod(objects: list[Object], pods: dict[str, Object]) -> None:
    protected = set()
    for budget in rendered.of_kind(objects, "PodDisruptionBudget"):
        (component,) = (name for name, pod in pods.items() if rendered.selects(budget["spec"]["selector"], pod))
        protected.add(component)
        assert budget["spec"]["maxUnavailable"] == 1
        assert least_pods(objects, component) >= 2
    for component in pods.keys() - {"test"}:
        assert (component in protected) == (least_pods(objects, component) >= 2), component


def least_pods(objects: list[Object], component: str) -> int:
    name = f"{RELEASE}-{component}"
    for kind, field in (("HorizontalPodAutoscaler", "minReplicas"), ("ScaledObject", "minReplicaCount")):
        for scaler in rendered.of_kind(objects, kind):
            if scaler["spec"]["scaleTargetRef"]["name"] == name:
                return int(scaler["spec"][field])
    return int(rendered.named(objects, "Deployment", name)["spec"]["replicas"])


def test_grace_covers_notice_and_drain(pods: dict[str, Object]) -> None:
    for component, pod in pods.items():
        if component == "test":
            continue
        container = pod["spec"]["containers"][0]
        if component in PEERS:
            given, prefix = rendered.environment(pod), PEERS[component].prefix
            notice, drain = float(given[f"{prefix}DRAIN_NOTICE_SECONDS"]), float(given[f"{prefix}DRAIN_SECONDS"])
        else:
            notice = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            (drain,) = (float(a.partition("=")[2]) for a in container["args"] if a.startswith("--exit-timeout-secs="))
        assert pod["spec"]["terminationGracePeriodSeconds"] > notice + drain


def test_services_are_headless_and_reach_their_pods(objects: list[Object], pods: dict[str, Object]) -> None:
    for component, pod in pods.items():
        if component == "test":
            continue
        service = rendered.named(objects, "Service", f"{RELEASE}-{component}")
        assert service["spec"]["clusterIP"] == "None"
        assert [
            name for name, each in pods.items() if rendered.selects({"matchLabels": service["spec"]["selector"]}, each)
        ] == [component]
        for port in service["spec"]["ports"]:
            assert rendered.ports(pod)[port["targetPort"]] == port["port"]


def test_the_network_allows_every_edge_of_the_code_and_no_other(objects: list[Object], pods: dict[str, Object]) -> None:
    used = {("test", "gateway", PEERS["gateway"].port)}
    for component in COMPONENTS:
        used |= {(component.name, peer, PEERS[peer].port) for peer in component.peers.values()}
        if component.runs_models:
            used.add((component.name, triton_of(pods[component.name], component.prefix), TRITON_GRPC_PORT))
    policies = rendered.of_kind(objects, "NetworkPolicy")
    outward = set(rendered.ends(policies, "Egress", pods))
    inward = {(there, here, port) for here, there, port in rendered.ends(policies, "Ingress", pods)}
    assert outward == used
    assert inward == used


def test_whatever_is_not_allowed_is_denied(objects: list[Object], pods: dict[str, Object]) -> None:
    (deny,) = (
        each["spec"]
        for each in rendered.of_kind(objects, "NetworkPolicy")
        if set(each["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    )
    assert "ingress" not in deny
    assert "egress" not in deny
    assert all(rendered.selects(deny["podSelector"], pod) for pod in pods.values())
    (dns,) = (
        each["spec"]
        for each in rendered.of_kind(objects, "NetworkPolicy")
        if each["metadata"]["name"].endswith("-to-dns")
    )
    assert all(rendered.selects(dns["podSelector"], pod) for pod in pods.values())


def test_every_pod_meets_pod_security_restricted(pods: dict[str, Object]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, and more: no writable root, no token."""
    allowed_volumes = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"}
    for pod in pods.values():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert all(set(volume) - {"name"} <= allowed_volumes for volume in spec["volumes"])
        for container in rendered.containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert "privileged" not in security
            assert all("hostPort" not in port for port in container.get("ports", []))


def test_each_component_has_an_account_of_its_own_without_a_token(
    objects: list[Object], pods: dict[str, Object]
) -> None:
    accounts = {each["metadata"]["name"]: each for each in rendered.of_kind(objects, "ServiceAccount")}
    used = [pod["spec"]["serviceAccountName"] for component, pod in pods.items() if component != "test"]
    assert sorted(used) == sorted(accounts)
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & {each["kind"] for each in objects}


def test_no_secret_is_in_the_environment_or_the_chart(objects: list[Object], pods: dict[str, Object]) -> None:
    assert not rendered.of_kind(objects, "Secret")
    for pod in pods.values():
        for container in rendered.containers(pod):
            assert "envFrom" not in container
            assert all(each.keys() == {"name", "value"} for each in container.get("env", []))


def test_everything_that_is_mounted_is_there_and_the_other_way_round(pods: dict[str, Object]) -> None:
    for pod in pods.values():
        mounted = {mount["name"] for container in rendered.containers(pod) for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_what_a_pod_may_take_on_fits_into_it(pods: dict[str, Object]) -> None:
    """Memory and disk that the settings allow, against what the pod has."""
    units = {"Mi": 2**20, "Gi": 2**30}

    def size(text: str) -> int:
        return int(text[:-2]) * units[text[-2:]]

    budgets = {"gateway": "MEMORY_BYTES", "visual": "CALL_BYTES_AT_ONCE", "audio": "CALL_BYTES_AT_ONCE"}
    for component, budget in budgets.items():
        pod, prefix = pods[component], PEERS[component].prefix
        limit = size(pod["spec"]["containers"][0]["resources"]["limits"]["memory"])
        assert int(rendered.environment(pod)[f"{prefix}{budget}"]) + 2**28 <= limit
    gateway = pods["gateway"]
    spool = next(each for each in gateway["spec"]["volumes"] if each["name"] == "spool")
    if "emptyDir" in spool:
        needed = int(rendered.environment(gateway)["BONAFIDE_GATEWAY_SPOOL_BYTES"])
        assert needed < size(spool["emptyDir"]["sizeLimit"])
    assert rendered.environment(gateway)["BONAFIDE_GATEWAY_SPOOL_DIRECTORY"] == "/spool"


def test_callers_are_anonymous_only_where_nothing_tells_them_apart(pods: dict[str, Object]) -> None:
    given = rendered.environment(pods["gateway"])
    known = {f"BONAFIDE_GATEWAY_{name}" for name in ("API_KEYS", "TOKEN_KEYS", "TLS_AUTHORITIES")}
    assert ("BONAFIDE_GATEWAY_ALLOW_ANONYMOUS" in given) == (not known & given.keys())


def test_triton_has_shared_memory_of_a_stated_size_within_its_limit(pods: dict[str, Object]) -> None:
    units = {"Mi": 2**20, "Gi": 2**30}
    for component, pod in pods.items():
        if not component.startswith("triton-"):
            continue
        (volume,) = (each["emptyDir"] for each in pod["spec"]["volumes"] if each["name"] == "shared-memory")
        assert volume["medium"] == "Memory"
        limit = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
        size, most = (int(text[:-2]) * units[text[-2:]] for text in (volume["sizeLimit"], limit))
        assert size < most


def test_our_python_backend_stays_out_of_the_gpu_image(pods: dict[str, Object]) -> None:
    for component, pod in pods.items():
        if component.startswith("triton-"):
            container = pod["spec"]["containers"][0]
            on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            ours = any(argument.startswith("--backend-directory=") for argument in container["args"])
            assert ours == (not on_gpu) == ("bonafide-triton-cpu" in container["image"])


def test_the_hook_analyses_a_clip_at_the_gateway(pods: dict[str, Object]) -> None:
    hook = pods["test"]
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "test"
    arguments = hook["spec"]["containers"][0]["args"]
    assert arguments[:2] == ["--server", address("gateway", PEERS["gateway"].port)]
    encrypted = "BONAFIDE_GATEWAY_TLS_CERTIFICATE" in rendered.environment(pods["gateway"])
    assert ("--plain-text" in arguments) != encrypted
    assert ("--ca=/tls/ca.crt" in arguments) == encrypted
