"""Every command of the operator's page that can be checked without a cluster: targets, options, files, objects."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import yaml

from bonafide import cli, keys, models_rollout
from deploy.helm.documented_values import CHART
from deploy.helm.render import golden
from deploy.topology import ROOT
from services.common.telemetry import DECLARED
from tests.deploy.commands import commands, values_files

PAGE = ROOT / "docs" / "operations.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = commands(TEXT)
SHELL = {"base64", "cat", "cp", "curl", "cd", "docker", "export", "grep", "jq", "kill", "promtool", "sleep", "tail"}
TOOLS = {"bonafide", "helm", "kubectl", "make"}
MADE_HERE = {"ca.pem", "clip.mp4", "keys.jsonl", "plan.json"}
"""Files that the page makes, or that are the reader's own."""


def of(tool: str) -> list[list[str]]:
    return [words for words in COMMANDS if words[0] == tool]


def shown(words: list[str]) -> str:
    return " ".join(words)


def options(words: list[str], *names: str) -> list[str]:
    """Values of an option, however it is given."""
    following = [after for word, after in pairwise(words) if word in names]
    return following + [word.partition("=")[2] for word in words if word.partition("=")[0] in names and "=" in word]


def test_the_page_has_commands_of_every_tool_and_no_other() -> None:
    used = {words[0] for words in COMMANDS}
    assert used >= TOOLS
    assert used <= TOOLS | SHELL, "teach this test the new tool"


@pytest.mark.parametrize("words", of("make"), ids=shown)
def test_make_has_the_target_and_its_variables(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words[1:]:
        name, given, _ = word.partition("=")
        wanted = rf"\$\({name}\)" if given else rf"^([\w -]* )?{name}( [\w -]*)?:"
        assert re.search(wanted, makefile, re.MULTILINE), word


@pytest.mark.parametrize("words", of("bonafide"), ids=shown)
def test_bonafide_takes_the_options(words: list[str]) -> None:
    if words[1] == "keys":
        keys._parser().parse_args(words[2:])
    elif words[1] == "models" and words[2:3] and words[2] in models_rollout.STEPS:
        models_rollout._parser().parse_args(words[2:])
    else:
        cli._parser().parse_args(words[1:])


@pytest.mark.parametrize("words", COMMANDS, ids=shown)
def test_files_that_are_named_exist(words: list[str]) -> None:
    flags = ("--values", "--file", "-f", "--filename", "--from-file", "--ca")
    for given in options(words, *flags):
        file = given.rpartition("=")[2]
        known = MADE_HERE | values_files(TEXT).keys()
        assert file in known or (ROOT / file).exists(), file


@pytest.mark.parametrize("words", of("helm"), ids=shown)
def test_helm_is_given_this_chart_and_this_release(words: list[str]) -> None:
    assert words[2] == "bonafide"
    assert words[3] == str(CHART.relative_to(ROOT)) or words[1] not in {"install", "upgrade", "template"}
    assert options(words, "--namespace") == ["trust"]
    if words[1] in {"install", "upgrade"}:  # or what the operator chose would be gone
        assert options(words, "--values")[0] == "platform.yaml"


@pytest.mark.parametrize("words", of("kubectl"), ids=shown)
def test_kubectl_is_asked_for_objects_that_the_chart_makes(words: list[str]) -> None:
    objects = golden("mtls") + golden("cpu") + golden("pools")
    kinds = {"deployment": "Deployment", "service": "Service", "configmap": "ConfigMap"}
    for kind, name in re.findall(r"\b(deployment|service|configmap)/([\w-]+)", shown(words)):
        if not name.startswith("prometheus"):
            assert name in {each["metadata"]["name"] for each in objects if each["kind"] == kinds[kind]}
    for selector in options(words, "-l", "--selector"):
        wanted = dict(pair.split("=") for pair in selector.split(","))
        assert any(wanted.items() <= each["metadata"]["labels"].items() for each in objects)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if "://" not in target:
            assert (PAGE.parent / target).exists(), target


def test_metrics_that_are_named_are_exported() -> None:
    exported = {each.name for each in DECLARED}
    for name in re.findall(r"\bbonafide_[a-z_]+", TEXT):
        assert re.sub(r"_(bucket|count|sum)$", "", name) in exported, name


def test_values_files_are_documented_values() -> None:
    for name, text in values_files(TEXT).items():
        assert isinstance(yaml.safe_load(text), dict), name
