"""What is on trial reaches every service as a file that may change while it runs."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from deploy.compose.render import HERE
from deploy.helm.render import CASES, RELEASE, Object, golden
from deploy.topology import COMPONENTS, ROOT
from services.common.rollout_plan import RolloutPlan, parse_plan
from tests.deploy import rendered


@pytest.fixture(params=CASES)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return golden(request.param)


def test_every_service_reads_the_plan_from_a_directory_that_follows_the_config_map(objects: list[Object]) -> None:
    plan = rendered.named(objects, "ConfigMap", f"{RELEASE}-rollout")
    for component in COMPONENTS:
        pod = rendered.pods(objects)[component.name]
        file = PurePosixPath(rendered.environment(pod)[f"{component.prefix}ROLLOUT_FILE"])
        (mount,) = (
            each
            for each in pod["spec"]["containers"][0]["volumeMounts"]
            if PurePosixPath(each["mountPath"]) == file.parent
        )
        assert "subPath" not in mount  # such a mount would never change
        (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == mount["name"])
        assert volume["configMap"]["name"] == plan["metadata"]["name"]
        assert file.name in plan["data"]


def test_plans_are_what_services_understand(objects: list[Object]) -> None:
    assert parse_plan(rendered.named(objects, "ConfigMap", f"{RELEASE}-rollout")["data"]["rollout.json"])


def test_a_trial_arrives_as_it_was_given() -> None:
    plan = parse_plan(rendered.named(golden("claim"), "ConfigMap", f"{RELEASE}-rollout")["data"]["rollout.json"])
    candidate = plan.candidates["frame_classifier"]
    assert (candidate.version, candidate.mode, candidate.share) == ("2", "canary", 0.05)
    assert candidate.budgets.minimum == 1000


def test_triton_is_told_models_and_serves_every_version_of_them(objects: list[Object]) -> None:
    for component, pod in rendered.pods(objects).items():
        if component.startswith("triton-"):
            arguments = pod["spec"]["containers"][0]["args"]
            models = {each.partition("=")[2] for each in arguments if each.startswith("--load-model=")}
            assert "--model-control-mode=explicit" in arguments
            for model in models:
                config = (ROOT / "model_repository" / model / "config.pbtxt").read_text()
                assert "version_policy { all { } }" in config, model


def test_compose_begins_with_nothing_on_trial() -> None:
    assert parse_plan((HERE / "rollout" / "rollout.json").read_text()) == RolloutPlan()
