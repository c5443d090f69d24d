"""Models and heads are exchanged under load on the real stack, and no request fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rollout.load import Load, Reply, failures
from benchmarks.rollout.scene import BAD, GOOD, MODEL, SILENT, SLOW, Scene
from services.common.models import HEADS

HEAD = "fusion_head"
BRIEF = ("--minimum", "5", "--seconds", "2")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Scene(tmp_path_factory.mktemp("rollout") / "scene") as running:
        yield running
        assert running.stack.ended() is None


@pytest.fixture
def load(scene: Scene) -> Iterator[Load]:
    with Load(scene.stack.gateway) as running:
        yield running
    scene.step("rollback", MODEL)
    assert not failures(running.replies)


def versions(replies: list[Reply], model: str = MODEL) -> set[str]:
    return {reply.version(model) for reply in replies} - {""}


def settled(scene: Scene, load: Load, version: str, model: str = MODEL) -> None:
    """Wait until a version, and no other, answers, and not as a candidate."""

    def only_it() -> bool:
        last = load.replies[-6:]
        return versions(last, model) == {version} and not any(reply.on_trial for reply in last)

    scene.until(only_it, f"only {version} answers")


def by_sample(replies: list[Reply]) -> dict[str, set[tuple[str, float | None]]]:
    return {
        name: {(one.verdict, one.probability) for one in replies if one.sample == name}
        for name in {reply.sample for reply in replies}
    }


def test_from_shadow_to_canary_to_stable_and_back(scene: Scene, load: Load) -> None:
    settled(scene, load, "1")
    scene.stage(GOOD)
    scene.step("shadow", MODEL, GOOD)
    scene.until(lambda: scene.comparisons(GOOD) >= 3, "it is compared")
    assert versions(load.replies) == {"1"}
    scene.step("canary", MODEL, GOOD, "--share", "0.5")
    scene.until(lambda: versions(load.replies[-12:]) == {"1", GOOD}, "both answer")
    scene.step("promote", MODEL)
    settled(scene, load, GOOD)
    scene.step("rollback", MODEL)
    scene.step("rollback", MODEL)
    settled(scene, load, "1")
    for reply in load.replies:
        if MODEL in dict(reply.versions):
            assert reply.version(HEAD) == reply.version(MODEL)
            assert not reply.on_trial or set(reply.on_trial) == {MODEL}
    assert {reply.version(MODEL) for reply in load.replies if reply.on_trial} == {GOOD}


@pytest.mark.parametrize(("version", "reason"), [(BAD, "DISAGREEMENT"), (SILENT, "ERRORS")])
def test_a_bad_canary_is_taken_back_by_itself(scene: Scene, load: Load, version: str, reason: str) -> None:
    scene.stage(version)
    scene.step("canary", MODEL, version, "--share", "1", *BRIEF)
    scene.until(
        lambda: scene.metric("visual", "bonafide_rollbacks_total", candidate=version, reason=reason) == 1,
        "it is taken back",
    )
    settled(scene, load, "1")
    assert scene.metric("visual", "bonafide_rollout_share", candidate=version) == 0


def test_a_shadow_that_never_ends_in_time_changes_nothing(scene: Scene, load: Load) -> None:
    scene.until(lambda: len(load.replies) > 12, "clips are answered")
    before = by_sample(load.replies)
    scene.stage(SLOW)
    began = time.monotonic()
    scene.step("shadow", MODEL, SLOW, "--minimum", "3", "--seconds", "0.3")
    scene.until(
        lambda: scene.metric("visual", "bonafide_rollbacks_total", candidate=SLOW, reason="ERRORS") == 1,
        "it is taken back",
    )
    during = by_sample(load.since(began))
    both = before.keys() & during.keys()
    assert both
    assert {name: during[name] for name in both} == {name: before[name] for name in both}


def test_heads_alone_have_their_canary(scene: Scene, load: Load) -> None:
    scene.stage_heads("9", scene.repository, 0.3)
    scene.step("canary", HEADS, "9", "--share", "0.5")
    try:
        scene.until(lambda: versions(load.replies[-12:], HEAD) == {"1", "9"}, "both answer")
        settled_by = [reply for reply in load.replies if reply.version(HEAD) == "9"]
        assert all(reply.on_trial for reply in settled_by)
        assert scene.metric("fusion", "bonafide_rollout_comparisons_total", model=HEADS, candidate="9") > 0
    finally:
        scene.step("rollback", HEADS)
    settled(scene, load, "1", HEAD)


def test_a_staged_version_leaves_without_a_trace(scene: Scene, load: Load) -> None:
    settled(scene, load, "1")
    staged = Path(scene.repository.root / MODEL / BAD)
    if not staged.exists():  # by a test before this one
        scene.stage(BAD)
    scene.step("retire", MODEL, BAD)
    assert not staged.exists()
