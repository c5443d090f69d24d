"""Renders the chart with a real helm, and reads the manifests that were accepted ("golden")."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.helm.documented_values import CHART

Object = dict[str, Any]
CASES = tuple(sorted(file.name.removesuffix("-values.yaml") for file in (CHART / "ci").glob("*-values.yaml")))
GOLDEN = CHART / "ci" / "golden"
RELEASE, NAMESPACE = "bonafide", "trust"
OLDEST, NEWEST = "1.31.0", "1.37.0"
"""Kubernetes versions that the chart is checked against."""

_API_VERSIONS = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1", "cert-manager.io/v1")


class RenderError(Exception):
    """Helm refused; carries what it said."""


def values_file(case: str) -> Path:
    """The values of a case of the matrix."""
    return CHART / "ci" / f"{case}-values.yaml"


def golden_file(case: str) -> Path:
    """The accepted manifest of a case."""
    return GOLDEN / f"{case}.yaml"


def golden(case: str) -> list[Object]:
    """The accepted objects of a case."""
    return list(yaml.load_all(golden_file(case).read_text(encoding="utf-8"), yaml.CSafeLoader))


def run_helm(helm: Path, arguments: Sequence[str]) -> str:
    """Run helm with nothing of the user's configuration.

    Raises:
        RenderError: it failed.
    """
    environment = {"HOME": "/nonexistent", "PATH": os.defpath, "KUBECONFIG": os.devnull}
    answer = subprocess.run(  # noqa: S603 - the pinned helm
        [helm, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    if answer.returncode:
        raise RenderError(answer.stderr.strip() + answer.stdout.strip())
    return answer.stdout


def template(helm: Path, values: Path, *settings: str, kube_version: str = NEWEST) -> list[Object]:
    """The objects that a release would be made of, in a fixed order.

    Raises:
        RenderError: the values are not accepted.
    """
    sets = [word for each in settings for word in ("--set", each)]
    apis = [word for each in _API_VERSIONS for word in ("--api-versions", each)]
    words = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(values)]
    text = run_helm(helm, [*words, "--kube-version", kube_version, *apis, *sets])
    objects = [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]
    return sorted(objects, key=lambda each: (each["kind"], each["metadata"]["name"]))


def as_text(objects: Sequence[Object]) -> str:
    """Objects as a golden file holds them: whichever helm wrote them, the same text."""
    return yaml.dump_all(objects, Dumper=yaml.CSafeDumper, explicit_start=True, width=120, allow_unicode=True)
