"""Questions to rendered objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
CONTROLLERS = {"Deployment"}


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    return found


def pods(objects: list[Object]) -> dict[str, Object]:
    """Every pod that would run, by component: its labels under ``metadata`` and its ``spec``."""
    found = [each["spec"]["template"] for each in of_kind(objects, "Deployment")] + of_kind(objects, "Pod")
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for pod in found}


def containers(pod: Object) -> list[Object]:
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def environment(pod: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod["spec"]["containers"][0].get("env", [])}


def ports(pod: Object) -> dict[str, int]:
    return {each["name"]: each["containerPort"] for each in pod["spec"]["containers"][0]["ports"]}


def selects(selector: Object, pod: Object) -> bool:
    """Whether a label selector matches a pod."""
    labels = pod["metadata"]["labels"]
    by_labels = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return by_labels and all(labels.get(each["key"]) in each["values"] for each in expressions)


def ends(policies: list[Object], direction: str, everyone: dict[str, Object]) -> Iterator[tuple[str, str, int]]:
    """What policies of one direction allow between pods of the release: who, to or from whom, on which port."""
    word, peer_word = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    for policy in policies:
        if direction not in policy["spec"]["policyTypes"]:
            continue
        here = [name for name, pod in everyone.items() if selects(policy["spec"]["podSelector"], pod)]
        for rule in policy["spec"].get(word, []):
            for peer in rule[peer_word]:
                if "podSelector" not in peer or "namespaceSelector" in peer:
                    continue
                there = [name for name, pod in everyone.items() if selects(peer["podSelector"], pod)]
                yield from ((mine, other, port["port"]) for mine in here for other in there for port in rule["ports"])
