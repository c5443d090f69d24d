"""The commands of the operator's page, asked of the real helm and kubectl: options exist, values render."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from deploy.helm.documented_values import CHART
from deploy.helm.render import NAMESPACE, RELEASE, run_helm
from deploy.helm.tools import KUBECTL
from tests.deploy.commands import commands, values_files

ROOT = CHART.parents[2]
TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COMMANDS = commands(TEXT)
OF_HELM = [words[1:] for words in COMMANDS if words[0] == "helm"]
INSTALLING = [words for words in OF_HELM if words[0] in {"install", "upgrade"}]
PLAN = (
    '{"format": 1, "models": {"frame_classifier": {"stable": "1",'
    ' "candidate": {"version": "2", "mode": "canary", "share": 0.05, "budgets": {"minimum": 20, "seconds": 10.0}}}}}'
)
"""What `bonafide models canary` writes into plan.json."""
OF_KUBECTL = [words[1:] for words in COMMANDS if words[0] == "kubectl"]


@pytest.mark.parametrize("words", OF_HELM, ids=" ".join)
def test_helm_knows_the_options(helm: Path, words: list[str]) -> None:
    run_helm(helm, [*words, "--help"])


@pytest.mark.parametrize("words", OF_KUBECTL, ids=" ".join)
def test_kubectl_knows_the_options(words: list[str]) -> None:
    environment = {"HOME": "/nonexistent", "PATH": os.defpath, "KUBECONFIG": os.devnull}
    answer = subprocess.run(
        [KUBECTL.binary, *words, "--help"], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    assert "Usage:" in answer.stdout


def test_an_option_that_is_not_there_is_noticed(helm: Path) -> None:
    with pytest.raises(Exception, match="unknown flag"):
        run_helm(helm, ["upgrade", RELEASE, str(CHART), "--reuse-the-values", "--help"])


@pytest.mark.parametrize("words", INSTALLING, ids=" ".join)
def test_what_is_installed_renders(helm: Path, words: list[str], tmp_path: Path) -> None:
    for name, text in values_files(TEXT).items():
        (tmp_path / name).write_text(text)
    rendering = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    for flag, given in pairwise(words):
        if flag == "--values":
            own = tmp_path / given
            rendering += [flag, str(own if own.exists() else ROOT / given)]
        elif flag in {"--set", "--set-json"}:
            rendering += [flag, given.replace("$(cat plan.json)", PLAN)]
    assert [each for each in yaml.safe_load_all(run_helm(helm, rendering)) if each]
