"""Policy checkers over what is rendered and over the Dockerfiles; every exception is here with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.helm.documented_values import CHART
from deploy.helm.render import GOLDEN

ROOT = CHART.parents[2]
CHECKOV = ROOT / ".venv-checkov" / "bin" / "checkov"
HADOLINT = Path(sys.executable).with_name("hadolint")

EVERYWHERE = {
    "CKV_K8S_11": "no CPU limits: they throttle a pod that could use an idle core; requests share the cores fairly",
    "CKV_K8S_15": "pull policy is the operator's; tags here are immutable versions, and digests win over them",
    "CKV_K8S_21": "helm puts objects into the release's namespace",
    "CKV_K8S_43": "image.digests takes digests; until images are published there are none to write down",
}
HERE = {
    "CKV_K8S_8": ("Pod.default.bonafide-test-analyze", "a hook that ends by itself has no liveness"),
    "CKV_K8S_9": ("Pod.default.bonafide-test-analyze", "nobody sends traffic to a hook"),
    "CKV_K8S_40": ("Deployment.default.bonafide-triton", "NVIDIA's image brings its own user, 1000"),
}


@pytest.mark.timeout(300)
def test_checkov_finds_nothing_but_the_stated_exceptions() -> None:
    if not CHECKOV.is_file():
        pytest.fail("checkov is not there: make .venv-checkov/.checkov")
    command = [
        CHECKOV,
        "--framework",
        "kubernetes",
        "--compact",
        "--quiet",
        "--skip-download",
        "-o",
        "json",
        "-d",
        GOLDEN,
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(answer.stdout)
    assert report["summary"]["passed"] > 1000
    assert report["summary"]["parsing_errors"] == 0
    unexpected = {
        (failed["check_id"], failed["check_name"], failed["resource"])
        for failed in report["results"]["failed_checks"]
        if failed["check_id"] not in EVERYWHERE
        and not failed["resource"].startswith(HERE.get(failed["check_id"], ("nothing", ""))[0])
    }
    assert not unexpected
    needed = {failed["check_id"] for failed in report["results"]["failed_checks"]}
    assert needed == EVERYWHERE.keys() | HERE.keys(), "an exception is no longer needed"


@pytest.mark.parametrize(
    "dockerfile", sorted((ROOT / "deploy" / "images").glob("*.Dockerfile")), ids=lambda file: file.stem
)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    answer = subprocess.run([HADOLINT, dockerfile], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM python\nRUN cd /tmp && apt-get install curl\n")
    assert subprocess.run([HADOLINT, broken], capture_output=True, check=False).returncode != 0
