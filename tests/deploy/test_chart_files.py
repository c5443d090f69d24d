"""The chart's own files: generated ones are current, every value says what it means."""

from __future__ import annotations

import json

import pytest
import yaml

from deploy.helm import generate
from deploy.helm.documented_values import CHART, VALUES, UndocumentedValueError, documented_values
from deploy.helm.values_schema import CHART_SETS, SECRETS, settings_schema
from deploy.observe.files import installed
from deploy.topology import COMPONENTS


@pytest.mark.parametrize("file", generate.files(), ids=lambda file: file.name)
def test_generated_files_are_current(file) -> None:
    assert file.read_text() == generate.files()[file], "run: python -m deploy.helm.generate"


def test_nothing_of_deploy_observe_is_left_over() -> None:
    assert {file.name for file in (CHART / "files" / "observe").iterdir()} == installed().keys()


def test_every_value_is_documented_and_none_is_lost() -> None:
    rebuilt: dict = {}
    for value in documented_values(VALUES.read_text()):
        assert value.meaning.endswith(".") or value.meaning.endswith("`.")
        place = rebuilt
        for key in value.path[:-1]:
            place = place.setdefault(key, {})
        place[value.path[-1]] = value.default
    assert rebuilt == yaml.safe_load(VALUES.read_text())


def test_a_value_without_comment_is_refused() -> None:
    with pytest.raises(UndocumentedValueError, match=r"gateway\.replicas"):
        documented_values("gateway:\n  replicas: 2\n")


def test_each_setting_is_either_the_operators_or_the_charts() -> None:
    for component in COMPONENTS:
        theirs = CHART_SETS | SECRETS | {name.lower() for name in component.peers}
        allowed = settings_schema(component)["properties"].keys()
        assert allowed | (theirs & component.settings.model_fields.keys()) == component.settings.model_fields.keys()
        assert not allowed & theirs


def test_the_schema_is_strict_everywhere() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def loose(node: dict, path: str) -> list[str]:
        found = [] if "additionalProperties" in node else [path]
        for key, below in node.get("properties", {}).items():
            if "properties" in below:
                found += loose(below, f"{path}.{key}")
        return found

    assert loose(schema, "") == []
    assert loose(schema["definitions"]["profile"], "profile") == []


def test_no_setting_that_is_secret_can_be_given_by_value() -> None:
    for component in COMPONENTS:
        allowed = settings_schema(component)["properties"].keys()
        assert not [name for name in allowed if any(word in name for word in ("secret", "password", "access_key"))]
