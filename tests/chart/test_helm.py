"""A real helm, of both majors, over the matrix."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.helm.documented_values import CHART
from deploy.helm.render import NEWEST, OLDEST, RELEASE, RenderError, golden, run_helm, template, values_file
from deploy.helm.tools import HELMS


def test_lint_finds_nothing(helm: Path, case: str) -> None:
    said = run_helm(helm, ["lint", "--strict", str(CHART), "--values", str(values_file(case))])
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


def test_renders_what_was_accepted(helm: Path, case: str) -> None:
    version = OLDEST if helm == HELMS[0].binary else NEWEST  # the templates ask for no version
    objects = template(helm, values_file(case), kube_version=version)
    assert objects == golden(case), "run: make chart, and read the difference"


def test_an_older_cluster_is_refused(helm: Path) -> None:
    with pytest.raises(RenderError, match="incompatible with Kubernetes"):
        template(helm, values_file("default"), kube_version="1.30.9")


def test_templates_do_not_depend_on_the_version_of_kubernetes() -> None:
    templates = [file.read_text() for file in (CHART / "templates").rglob("*") if file.is_file()]
    assert not [text for text in templates if ".Capabilities" in text]


@pytest.mark.parametrize(
    "setting",
    [
        "gateway.replica=3",
        "gateway.settings.max_duration=3",
        "gateway.settings.listen=0.0.0.0:1",
        "visual.settings.max_tracks=0",
        "triton.profiles.all.engin=cpu",
        "triton.profiles.all.autoscaling.by=inFlight",
        "image.digests.gateway=latest",
        "mode=batch",
        "models.rollout.models.frame_classifier.candidate.mode=loud",
        "tracing.endpoint=collector",
        "tracing.sampleRatio=2",
        "logFormat=xml",
    ],
)
def test_values_that_mean_nothing_are_refused(helm: Path, setting: str) -> None:
    with pytest.raises(RenderError, match="values don't meet the specifications"):
        template(helm, values_file("default"), setting)


KEDA = "keda.prometheus=http://p:9090"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["image.registry="], "image.registry"),
        (["audio.tritonProfile=sound"], "there is no triton.profiles.sound"),
        (["models.source=claim"], "models.claim"),
        (["tls.mode=certManager", "tls.issuer.name=a", "tracing.endpoint=http://c.m:4317"], "give https://"),
        (["triton.profiles.all.autoscaling.enabled=true"], "which nobody may scrape"),
        (["gateway.autoscaling.by=inFlight"], "which nobody may scrape"),
        (["monitoring.enabled=true", "triton.profiles.all.autoscaling.enabled=true"], "keda.prometheus"),
        (
            ["monitoring.enabled=true", "mode=backfill", "triton.profiles.all.autoscaling.enabled=true", KEDA],
            "something must wake the pool",
        ),
    ],
)
def test_values_that_cannot_work_say_what_is_missing(helm: Path, settings: list[str], said: str) -> None:
    with pytest.raises(RenderError, match=said):
        template(helm, values_file("default"), *settings)


def test_what_is_on_trial_restarts_nothing(helm: Path) -> None:
    candidate = "models.rollout.models.frame_classifier.candidate"
    before = template(helm, values_file("claim"))
    after = template(helm, values_file("claim"), f"{candidate}.mode=shadow", f"{candidate}.share=1")
    changed = [each["metadata"]["name"] for each, other in zip(before, after, strict=True) if each != other]
    assert changed == [f"{RELEASE}-rollout"]


NOTES_AS_OBJECT = """apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data:
  notes: {{ tpl (.Files.Get "notes.txt") . | quote }}
"""


def notes(helm: Path, case: str, directory: Path) -> str:
    """The notes after an install; helm prints them only with a cluster, so a copy of the chart carries them."""
    chart = directory / "bonafide"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "notes.txt")
    (chart / "templates" / "notes.yaml").write_text(NOTES_AS_OBJECT)
    words = ["template", RELEASE, str(chart), "--namespace", "trust", "--show-only", "templates/notes.yaml"]
    return yaml.safe_load(run_helm(helm, [*words, "--values", str(values_file(case))]))["data"]["notes"]


def test_notes_give_the_two_next_commands(helm: Path, tmp_path: Path) -> None:
    said = notes(helm, "small", tmp_path)
    assert "helm test bonafide --namespace trust" in said
    assert "port-forward service/bonafide-gateway 8500:8500" in said
    assert "gateway has one pod" in said


def test_notes_say_what_is_open(helm: Path, tmp_path: Path) -> None:
    open_notes, closed_notes = notes(helm, "default", tmp_path / "a"), notes(helm, "secrets", tmp_path / "b")
    for warning in ("tls.mode is off", "asks nobody who they are"):
        assert warning in open_notes
        assert warning not in closed_notes


def test_a_server_accepts_the_release(helm: Path, case: str) -> None:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        pytest.skip("needs an API server: KUBECONFIG is not set")
    command = [helm, "install", RELEASE, CHART, "--dry-run=server", "--values", values_file(case)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert answer.returncode == 0, answer.stderr


def test_the_chart_packs_no_tests_or_sources(helm: Path, tmp_path: Path) -> None:
    run_helm(helm, ["package", str(CHART), "--destination", str(tmp_path)])
    (package,) = tmp_path.glob("*.tgz")
    names = subprocess.run(["tar", "tzf", package], capture_output=True, text=True, check=True).stdout.split()
    assert "bonafide/values.schema.json" in names
    assert "bonafide/files/topology.json" in names
    assert not [name for name in names if "/ci/" in name or "head" in name]


def test_chart_metadata_names_the_oldest_version() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert metadata["kubeVersion"] == f">={OLDEST}-0"
