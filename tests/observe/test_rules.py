"""The rules do what they say: promtool checks them, and every alert fires where it should and nowhere else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.observe import generate
from deploy.observe.files import RULES, RUNBOOKS_URL, installed
from deploy.observe.tools import Tools, find
from tests.observe.expressions import alerts, page_path, rule_groups

CASES = sorted((Path(__file__).parent / "promtool").glob("*.yaml"))


@pytest.fixture(scope="session")
def tools() -> Tools:
    found = find()
    if found is None:
        pytest.skip("no promtool: make prometheus fetches it where there is apt")
    return found


def promtool(tools: Tools, *arguments: str) -> None:
    done = subprocess.run([tools.promtool, *arguments], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def fired() -> set[tuple[str, str]]:
    """Alerts and severities that some test expects to fire."""
    found = set()
    for test in (test for file in CASES for test in yaml.safe_load(file.read_text())["tests"]):
        for case in test["promql_expr_test"]:
            for sample in case["exp_samples"]:
                for rule in alerts():
                    name, severity = rule["alert"], rule["labels"]["severity"]
                    label = f'severity="{severity}"'
                    if f'"{name}"' in case["expr"] and label in case["expr"] + sample["labels"]:
                        found.add((name, severity))
    return found


def test_files_are_what_is_generated() -> None:
    for file, content in generate.files().items():
        assert file.read_text() == content, f"{file.name}: run python -m deploy.observe.generate"


def test_promtool_accepts_the_rules(tools: Tools) -> None:
    promtool(tools, "check", "rules", str(RULES))


@pytest.mark.parametrize("case", CASES, ids=lambda file: file.stem)
def test_alerts_fire_where_they_should_and_nowhere_else(tools: Tools, case: Path) -> None:
    promtool(tools, "test", "rules", str(case))


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    assert fired() == {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()}


def test_every_case_has_a_system_that_is_well() -> None:
    for file in CASES:
        for test in yaml.safe_load(file.read_text())["tests"]:
            series = " ".join(each["series"] for each in test["input_series"])
            assert 'namespace="good"' in series, (file.name, test["name"])
            for case in test["promql_expr_test"]:
                assert not any('namespace="good"' in sample["labels"] for sample in case["exp_samples"])


def test_cases_evaluate_every_group_in_the_order_of_the_rules() -> None:
    order = [group["name"] for group in rule_groups()]
    for file in CASES:
        assert yaml.safe_load(file.read_text())["group_eval_order"] == order


def test_alerts_say_how_bad_what_and_where_to_read_on() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert page_path(rule["annotations"]["runbook_url"], RUNBOOKS_URL).stem == rule["alert"]


def test_whoever_installs_the_files_chooses_where_the_pages_are() -> None:
    files = installed("https://wiki.test/pages")
    assert {"rules.yaml", "fleet.json", "latency.json", "models.json", "capacity.json"} == files.keys()
    groups = yaml.safe_load(files["rules.yaml"])["groups"]
    urls = {rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule}
    assert all(url.startswith("https://wiki.test/pages/Bonafide") for url in urls)
    assert not any(RUNBOOKS_URL in text for text in files.values())
