from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import ModelRepositoryError, UnavailableError
from services.common.evidence import Branch
from services.fusion.features import clip_features
from services.fusion.heads import Head, Term, branch_sets, head_key, load_heads, sigmoid, transform_of
from services.fusion.store import SHIPPED_HEADS, HeadStore
from tests.fusion.conftest import head_json, resign, scored


def make_head(branches: frozenset[Branch]) -> Head:
    content = head_json(branches)
    terms = tuple(
        Term(name, transform_of(name), 0.1, 1.5, weight)
        for name, weight in zip(content["features"], content["coefficients"], strict=True)
    )
    return Head(branches, terms, content["intercept"], content["temperature"], "0" * 64, {"clips": 10})


def test_there_is_a_head_for_each_of_the_31_sets(heads_directory: Path) -> None:
    heads = load_heads(heads_directory)
    assert len(heads) == 31
    assert set(heads) == set(branch_sets())
    assert len({head.key for head in heads.values()}) == 31


def test_key_names_branches_in_feature_order() -> None:
    assert head_key({Branch.SYNC, Branch.PATCH, Branch.TEMPORAL, Branch.AUDIO}) == "patch_audio_temporal_sync"


@given(st.sampled_from(branch_sets()), st.floats(0, 1), st.floats(0, 1))
def test_contributions_sum_to_the_log_odds(branches: frozenset[Branch], first: float, second: float) -> None:
    head = make_head(branches)
    reports = [scored(branch, first if index % 2 else second) for index, branch in enumerate(sorted(branches))]
    features = clip_features(reports)
    parts = head.contributions(features)
    probability = head.probability(features)
    assert 0.0 < probability < 1.0
    assert sum(part.log_odds for part in parts) == pytest.approx(math.log(probability / (1 - probability)))
    assert [part.feature for part in parts[:-1]] == list(features)
    assert parts[-1].feature == "intercept"


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_branch_probability_never_lowers_the_fused_one(one: float, other: float) -> None:
    head = make_head(frozenset({Branch.AUDIO}))
    low, high = sorted((one, other))
    assert head.probability({"audio_prob_fake": low}) <= head.probability({"audio_prob_fake": high})


@given(st.floats(-1000, 1000))
def test_sigmoid_is_symmetric_and_bounded(value: float) -> None:
    assert 0.0 <= sigmoid(value) <= 1.0
    assert sigmoid(value) + sigmoid(-value) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["patch_frame.json", "policies/balanced.json"])
def test_one_changed_byte_is_refused_and_named(heads_directory: Path, name: str) -> None:
    path = heads_directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelRepositoryError, match=name):
        HeadStore(heads_directory).refresh()


def test_a_missing_head_is_refused_and_named(heads_directory: Path) -> None:
    (heads_directory / "audio.json").unlink()
    with pytest.raises(ModelRepositoryError, match=r"audio\.json"):
        load_heads(heads_directory)


def test_without_a_manifest_nothing_is_loaded(heads_directory: Path) -> None:
    (heads_directory / "manifest.json").unlink()
    with pytest.raises(ModelRepositoryError, match="manifest"):
        load_heads(heads_directory)


def _swap_features(content: dict[str, Any]) -> None:
    content["features"][0], content["features"][1] = content["features"][1], content["features"][0]


def _shorten(content: dict[str, Any]) -> None:
    content["coefficients"].pop()


def _zero_scale(content: dict[str, Any]) -> None:
    content["scaler"]["scale"][0] = 0.0


def _negative_temperature(content: dict[str, Any]) -> None:
    content["temperature"] = -1.0


def _not_a_number(content: dict[str, Any]) -> None:
    content["intercept"] = math.nan


def _untrained(content: dict[str, Any]) -> None:
    content["training"] = {}


def _other_branches(content: dict[str, Any]) -> None:
    content.update(head_json(frozenset({Branch.AUDIO})))


@pytest.mark.parametrize(
    "spoil",
    [_swap_features, _shorten, _zero_scale, _negative_temperature, _not_a_number, _untrained, _other_branches],
)
def test_an_unusable_head_is_refused_even_when_signed(
    heads_directory: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    path = heads_directory / "frame.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    resign(heads_directory, "frame.json")
    with pytest.raises(ModelRepositoryError, match=r"frame\.json"):
        load_heads(heads_directory)


def test_a_failed_refresh_keeps_what_was_loaded(heads_directory: Path) -> None:
    store = HeadStore(heads_directory)
    with pytest.raises(UnavailableError):
        _ = store.heads
    store.refresh()
    (heads_directory / "frame.json").write_text("{}")
    with pytest.raises(ModelRepositoryError):
        store.refresh()
    assert len(store.heads) == 31


@pytest.mark.skipif(not (SHIPPED_HEADS / "manifest.json").is_file(), reason="no heads are trained yet")
class TestShippedHeads:
    def test_they_are_whole(self) -> None:
        store = HeadStore()
        store.refresh()
        assert len(store.heads) == 31
        assert {"balanced", "cautious"} <= set(store.policies.names())

    def test_no_probability_speaks_against_itself(self) -> None:
        for head in load_heads(SHIPPED_HEADS).values():
            assert all(term.coefficient >= 0 for term in head.terms if "_num_" not in term.feature)

    @given(st.sampled_from(branch_sets()))
    def test_more_suspicion_never_clears_a_clip(self, branches: frozenset[Branch]) -> None:
        head = load_heads(SHIPPED_HEADS)[branches]
        low = head.probability(clip_features(scored(branch, 0.02) for branch in branches))
        high = head.probability(clip_features(scored(branch, 0.98) for branch in branches))
        assert low <= high
