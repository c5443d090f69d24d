"""Every object against the schema of its kind; a kind that nobody knows fails."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.cert_manager import v1 as cert_manager
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus

from deploy.helm.documented_values import CHART
from deploy.helm.render import NEWEST, OLDEST, golden

CUSTOM = {
    ("cert-manager.io/v1", "Certificate"): cert_manager.Certificate,
    ("cert-manager.io/v1", "ClusterIssuer"): cert_manager.ClusterIssuer,
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("monitoring.coreos.com/v1", "PodMonitor"): prometheus.PodMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): prometheus.PrometheusRule,
}


def custom_type(each: dict[str, Any]) -> Any:
    return CUSTOM.get((each["apiVersion"], each["kind"]))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_objects_meet_the_schemas_of_kubernetes(case: str, version: str) -> None:
    for each in golden(case):
        if custom_type(each) is None:
            # Raises SchemaNotFoundError for what this version does not have.
            kubernetes_validate.validate(each, version.rpartition(".")[0], strict=True)


def test_the_example_authority_is_made_of_what_cert_manager_knows() -> None:
    objects = list(yaml.safe_load_all((CHART.parent / "authority.yaml").read_text()))
    for each in objects:
        read = custom_type(each).model_validate(each).model_dump(by_alias=True, exclude_unset=True, mode="json")
        assert read == each
    secret = next(each["spec"]["secretName"] for each in objects if each["kind"] == "Certificate")
    assert objects[-1]["spec"]["ca"]["secretName"] == secret


def test_custom_objects_meet_the_types_of_their_operators(case: str) -> None:
    for each in golden(case):
        kind = custom_type(each)
        if kind is not None:
            read = kind.model_validate(each).model_dump(by_alias=True, exclude_unset=True, mode="json")
            assert read == each  # the types drop what they do not know


def test_an_unknown_kind_or_key_fails() -> None:
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        kubernetes_validate.validate({"apiVersion": "apps/v9", "kind": "Deployment"}, "1.37", strict=True)
    broken = next(each for each in golden("default") if each["kind"] == "Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.37", strict=True)
