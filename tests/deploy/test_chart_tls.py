"""Mutual TLS in the accepted manifests: every hop, every identity, every file."""

from __future__ import annotations

import json

import pytest

from deploy.helm.render import NAMESPACE, RELEASE, golden
from deploy.topology import COMPONENTS
from tests.deploy import rendered
from tests.deploy.rendered import Object

ENCRYPTED = ("mtls", "secrets")


@pytest.fixture(params=ENCRYPTED)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return golden(request.param)


def given(objects: list[Object], component: str) -> dict[str, str]:
    return rendered.environment(rendered.pods(objects)[component])


def test_no_service_may_speak_plain_text(objects: list[Object]) -> None:
    for component in COMPONENTS:
        assert f"{component.prefix}ALLOW_PLAINTEXT" not in given(objects, component.name)
        component_files = given(objects, component.name)
        assert component_files[f"{component.prefix}TLS_CERTIFICATE"].endswith("tls.crt")


def test_services_behind_the_gateway_admit_the_gateway_alone(objects: list[Object]) -> None:
    trust = "trust.example" if rendered.of_kind(objects, "Certificate") else "cluster.local"
    for component in COMPONENTS:
        if component.runs_models:
            allowed = json.loads(given(objects, component.name)[f"{component.prefix}ALLOWED_PEERS"])
            account = rendered.pods(objects)["gateway"]["spec"]["serviceAccountName"]
            assert allowed == [f"spiffe://{trust}/ns/{NAMESPACE}/sa/{account}"]
            assert given(objects, component.name)[f"{component.prefix}TLS_AUTHORITIES"] == "/tls/ca.crt"


def test_every_call_shows_a_certificate_and_checks_the_other(objects: list[Object]) -> None:
    for component in COMPONENTS:
        kind = "TRITON" if component.runs_models else "PEER"
        files = {
            name: given(objects, component.name)[f"{component.prefix}{kind}_{name}"]
            for name in ("AUTHORITIES", "CERTIFICATE", "KEY")
        }
        assert files == {"AUTHORITIES": "/tls/ca.crt", "CERTIFICATE": "/tls/tls.crt", "KEY": "/tls/tls.key"}
    for name, pod in rendered.pods(objects).items():
        if name.startswith("triton-"):
            assert {"--grpc-use-ssl=true", "--grpc-use-ssl-mutual=true"} <= set(pod["spec"]["containers"][0]["args"])


def test_every_file_that_is_named_lies_in_a_secret_that_is_mounted(objects: list[Object]) -> None:
    for pod in rendered.pods(objects).values():
        container = pod["spec"]["containers"][0]
        words = [each["value"] for each in container.get("env", [])] + container.get("args", [])
        files = {word.rpartition("=")[2] for word in words if word.rpartition("=")[2].startswith(("/tls", "/receiver"))}
        secrets = {volume["name"] for volume in pod["spec"]["volumes"] if "secret" in volume}
        places = {
            mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in secrets and mount["readOnly"]
        }
        assert files
        assert {file.rpartition("/")[0] for file in files} <= places


def test_certificates_carry_the_identity_and_the_names_that_callers_dial() -> None:
    objects = golden("mtls")
    pods = rendered.pods(objects)
    certificates = {each["metadata"]["name"]: each["spec"] for each in rendered.of_kind(objects, "Certificate")}
    assert certificates.keys() == {f"{RELEASE}-{name}" for name in pods}
    for name, pod in pods.items():
        spec = certificates[f"{RELEASE}-{name}"]
        account = pod["spec"].get("serviceAccountName", f"{RELEASE}-{name}")
        assert spec["uris"] == [f"spiffe://trust.example/ns/{NAMESPACE}/sa/{account}"]
        assert f"{RELEASE}-{name}.{NAMESPACE}.svc.cluster.local" in spec["dnsNames"]
        mounted = {volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume}
        assert spec["secretName"] in mounted


def test_callers_see_the_certificate_that_was_chosen_for_them() -> None:
    public, own = given(golden("mtls"), "gateway"), given(golden("secrets"), "gateway")
    assert public["BONAFIDE_GATEWAY_TLS_CERTIFICATE"] == "/tls-callers/tls.crt"
    assert "BONAFIDE_GATEWAY_TLS_AUTHORITIES" not in public
    assert own["BONAFIDE_GATEWAY_TLS_CERTIFICATE"] == "/tls/tls.crt"
    assert own["BONAFIDE_GATEWAY_TLS_AUTHORITIES"] == "/tls/ca.crt"
