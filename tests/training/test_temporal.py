from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import onnxruntime
import torch

from services.visual.expression import CHANNELS
from services.visual.residuals import WIDTH
from tests.visual.meshes import drawn_mesh
from training.temporal.__main__ import train
from training.temporal.corpus import ClipRows
from training.temporal.evaluation import held_out, source_folds
from training.temporal.export import export, triton_config
from training.temporal.face_forgery import RECIPES, Stretch
from training.temporal.fitting import Kind, Sequences, example_weights, fit_members, texture_examples
from training.temporal.network import (
    MOTION_WIDTH,
    PAIRS,
    TEXTURE_WIDTH,
    EmbeddingNet,
    EmbeddingStatistics,
    EmbeddingSteps,
    LinearHead,
    MotionStatistics,
    SequenceNet,
    Standard,
    TemporalNetwork,
    TextureStatistics,
    statistics,
)

pytestmark = pytest.mark.training
QUICK = Sequences(steps=10, window=24, members=1, embedding_members=1)


def clip(number: int, fake: int, source: str, random: np.random.Generator) -> ClipRows:
    """A clip whose first texture number and whose mouth give its class away."""
    texture = random.normal(0, 1, (24, WIDTH)).astype(np.float32)
    texture[:, 0] += 2 * fake
    motion = random.normal(0, 0.01, (60, len(CHANNELS))).cumsum(axis=0).astype(np.float32)
    motion[:, 0] = motion[:, 6] if fake else motion[:, 0]
    variants = {"original": texture, "copy/0": texture + 0.1}
    if not fake:
        forged = texture.copy()
        forged[:, 0] += 2
        variants["forged/face"] = forged
    embeddings = random.normal(0, 1, (16, 20)).astype(np.float32)
    embeddings[:, 5] = np.sin(np.arange(16) * (2.5 if fake else 0.4)) * 4
    method = "method" if fake else "real"
    return ClipRows(f"clip{number}", fake, f"group{number}", source, method, motion, variants, embeddings, 2.0 * fake)


@pytest.fixture
def clips() -> list[ClipRows]:
    random = np.random.default_rng(0)
    return [clip(number, number % 2, f"source{number // 4 % 6}", random) for number in range(48)]


@pytest.fixture
def network() -> TemporalNetwork:
    torch.manual_seed(3)
    random = np.random.default_rng(3)
    heads = [
        LinearHead(
            Standard(random.normal(0, 1, width), random.uniform(0.5, 2, width)), random.normal(0, 0.1, width), 0.2
        )
        for width in (TEXTURE_WIDTH, MOTION_WIDTH)
    ]
    nets = [
        SequenceNet(Standard(np.zeros(width), np.ones(width)), width, steps=steps).eval()
        for width, steps in ((WIDTH, False), (len(CHANNELS), True))
    ]
    steps, along = EmbeddingSteps(random.normal(0, 1, (20, 6))), Standard(np.zeros(6), np.full(6, 4.0))
    amounts = LinearHead(Standard(np.zeros(20), np.ones(20)), random.normal(0, 0.1, 20), 0.3)
    embeddings = [
        (EmbeddingNet(steps, SequenceNet(along, 6, steps=False).eval(), 20), 2.0),
        (EmbeddingNet(EmbeddingStatistics(), amounts, 20), 0.4),
    ]
    texture, motion = [(heads[0], 0.7), (nets[0], 0.3)], [(heads[1], 0.5), (nets[1], 0.2)]
    return TemporalNetwork(texture, motion, embeddings, -0.1)


@pytest.mark.parametrize(("batch", "rows", "frames", "crops"), [(1, 8, 16, 4), (3, 41, 250, 16)])
def test_the_served_graph_is_the_trained_network(
    network: TemporalNetwork, tmp_path: Path, batch: int, rows: int, frames: int, crops: int
) -> None:
    session = onnxruntime.InferenceSession(export(network, tmp_path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(rows)
    texture = random.normal(0, 1, (batch, rows, WIDTH)).astype(np.float32)
    texture[0, : rows // 2, 3:9] = np.nan
    texture[0, :, 11] = np.nan
    motion = random.normal(0, 1, (batch, frames, len(CHANNELS))).astype(np.float32)
    embeddings = random.normal(0, 1, (batch, crops, 20)).astype(np.float32)
    embeddings[1:2] = np.nan
    inputs = {"texture": texture, "motion": motion, "embeddings": embeddings}
    (served,) = session.run(["logit"], inputs)
    with torch.no_grad():
        expected = network(*map(torch.from_numpy, inputs.values())).numpy()
    assert served.shape == (batch, 1)
    assert np.isfinite(served).all()
    np.testing.assert_allclose(served, expected, atol=1e-4)
    assert (tmp_path / "temporal" / "config.pbtxt").read_text() == triton_config(20)


def test_a_face_without_embeddings_is_judged_by_the_rest(network: TemporalNetwork) -> None:
    random = np.random.default_rng(6)
    texture = torch.from_numpy(random.normal(0, 1, (1, 30, WIDTH)).astype(np.float32))
    motion = torch.from_numpy(random.normal(0, 1, (1, 60, len(CHANNELS))).astype(np.float32))
    embeddings = torch.from_numpy(random.normal(0, 1, (1, 9, 20)).astype(np.float32))
    with torch.no_grad():
        absent = network(texture, motion, torch.full((1, 4, 20), torch.nan))
        present = network(texture, motion, embeddings)
        first, second = (member(embeddings) for member in network.embeddings)
        moved = network(texture, motion, embeddings + 7)
    torch.testing.assert_close(present - absent, 2.0 * first + 0.4 * second)
    assert (present - absent).abs().item() > 0.01
    torch.testing.assert_close(moved, present, atol=1e-3, rtol=0)  # whose face it is does not count


def test_statistics_leave_out_what_was_not_seen() -> None:
    rows = np.random.default_rng(1).normal(0, 1, (20, WIDTH)).astype(np.float32)
    holed = np.concatenate([rows, np.full((5, WIDTH), np.nan, np.float32)])
    np.testing.assert_allclose(statistics(TextureStatistics(), holed), statistics(TextureStatistics(), rows), atol=1e-5)
    mean, deviation = np.split(statistics(TextureStatistics(), rows), 2)
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(deviation, np.log(rows.std(axis=0) + 0.02), atol=1e-5)


def test_motion_statistics_are_those_of_numpy() -> None:
    rows = np.random.default_rng(2).normal(0, 1, (53, len(CHANNELS))).astype(np.float32)
    found = statistics(MotionStatistics(), rows)
    steps = np.diff(rows, axis=0)
    for place, pair in enumerate(PAIRS):
        one, other = (CHANNELS.index(name) for name in pair)
        assert found[place] == pytest.approx(np.corrcoef(steps[:, one], steps[:, other])[0, 1], abs=1e-5)
        assert found[len(PAIRS) + place] == pytest.approx(np.corrcoef(rows[:, one], rows[:, other])[0, 1], abs=1e-5)
    assert np.isfinite(statistics(MotionStatistics(), np.zeros((16, len(CHANNELS)), np.float32))).all()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_forge_the_face_and_repeat_themselves(name: str) -> None:
    random = np.random.default_rng(4)
    pictures = [random.integers(0, 255, (200, 220, 3), dtype=np.uint8) for _ in range(6)]
    landmarks = np.stack([drawn_mesh((100 + step, 100))[:, :2] for step in range(6)])
    stretch = Stretch(pictures, landmarks)
    first = RECIPES[name](stretch, np.random.default_rng(7))
    second = RECIPES[name](stretch, np.random.default_rng(7))
    assert [frame.shape for frame in first] == [(200, 220, 3)] * 6
    np.testing.assert_array_equal(np.stack(first), np.stack(second))
    assert any(
        (frame[90:150, 70:140] != picture[90:150, 70:140]).any() for frame, picture in zip(first, pictures, strict=True)
    )
    if name != "reenacted":
        np.testing.assert_array_equal(np.stack(first)[:, :20], np.stack(pictures)[:, :20])


def test_forgeries_are_learnt_as_fakes_and_labels_weigh_the_same(clips: list[ClipRows]) -> None:
    examples = texture_examples(clips)
    assert len(examples) == sum(len(item.texture) for item in clips)
    fake = np.array([example.fake for example in examples], bool)
    assert fake.sum() == sum(len(item.texture) if item.fake else 1 for item in clips)
    weights = example_weights(examples)
    assert weights[fake].sum() == pytest.approx(weights[~fake].sum())


def test_folds_share_no_source_and_no_identity(clips: list[ClipRows]) -> None:
    folds = source_folds(clips, 0)
    assert sorted(source for fold in folds for source in fold) == sorted({item.source for item in clips})
    for sources in folds:
        learnt, scored = held_out(clips, sources)
        assert not {clips[place].source for place in learnt} & {clips[place].source for place in scored}
        assert not {clips[place].group for place in learnt} & {clips[place].group for place in scored}


def test_training_finds_the_trace_and_repeats_itself(clips: list[ClipRows], tmp_path: Path) -> None:
    cards = []
    for folder in ("first", "second"):
        train(clips, 0, tmp_path / folder, QUICK)
        cards.append((tmp_path / folder / "temporal" / "card.json").read_text())
    assert cards[0] == cards[1]
    assert '"value": 1.0' in cards[0]


def test_the_lstm_members_learn_and_repeat_themselves(clips: list[ClipRows]) -> None:
    plan = Sequences(steps=60, window=24, members=1, embedding_members=1)
    kinds = [Kind.TEXTURE_BILSTM, Kind.MOTION_BILSTM, Kind.EMBEDDING_BILSTM]
    first, second = ({one.kind: one for one in fit_members(clips, 0, plan, kinds)} for _ in range(2))
    fake = np.array([item.fake for item in clips], bool)
    for kind in kinds:
        scores = np.array([first[kind].score(item) for item in clips])
        np.testing.assert_allclose(scores, [second[kind].score(item) for item in clips], atol=1e-5)
        if kind is not Kind.MOTION_BILSTM:
            assert scores[fake].mean() > scores[~fake].mean()
    assert first[Kind.EMBEDDING_BILSTM].score(replace(clips[0], embeddings=None)) == 0
