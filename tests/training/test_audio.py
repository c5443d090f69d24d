"""The served spectral front end against scipy and plain loops, and training that repeats itself."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import onnx
import onnxruntime
import soundfile
import torch
from scipy import fft

from services.audio.preparation import prepare
from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from tests.training.sounds import Floats, Sound, sound
from training.audio.cepstral_network import CepstralClassifier, ExcerptCepstra, Schedule, fit, score
from training.audio.channels import CHANNELS, CLEAN, DEGRADATIONS, Family, through_some_aac
from training.audio.comparison import by_hand, few_of_each, report
from training.audio.constant_q import QUALITY, ConstantQ, centres, cepstral_matrix
from training.audio.corpus import Utterance, read_utterances
from training.audio.evaluation import held_out_splits, held_out_system_splits, source_folds
from training.audio.export import MixtureGraph, SpoofClassifier, export
from training.audio.features import FineStructure
from training.audio.heads import cell_weights
from training.audio.mixture import MixtureSettings
from training.audio.training import Corpus, hold_out, train

pytestmark = pytest.mark.training

FAMILIES = {"clean": Family(("clean",)), "noisy": Family(("noise_20db",), kin=("clean",))}


def toy_utterances(count: int = 60) -> list[Utterance]:
    """Six sources whose fakes buzz, so that there is something to learn."""
    return [
        Utterance(
            key=f"toy{index}",
            fake=bool(index % 2),
            source=f"source{index % 6 // 2}" if index < count // 2 else f"source{3 + index % 6 // 2}",
            speaker=f"speaker{index}",
            system="toy",
            attack="-",
            samples=sound(index, 0.6, buzzing=bool(index % 2)),
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def toy() -> Corpus:
    utterances = toy_utterances()
    extractor = FineStructure().eval()
    table = {}
    for name in ("clean", "noise_20db"):
        channel = CHANNELS[name]
        rng = np.random.default_rng(0)
        sounds = [prepare(channel(item.samples, rng) if channel else item.samples) for item in utterances]
        with torch.inference_mode():
            table[name] = np.stack([extractor(torch.from_numpy(part)[None])[0].numpy() for part in sounds])
    return Corpus(tuple(utterances), table, FAMILIES)


def test_training_twice_gives_the_same_model(toy: Corpus) -> None:
    settings = MixtureSettings()
    first, second = train(toy, settings), train(toy, settings)
    np.testing.assert_array_equal(first.logits(toy.table["clean"]), second.logits(toy.table["clean"]))
    held_out = [hold_out(toy, settings, seed=0).logits["noise_20db"] for _ in range(2)]
    np.testing.assert_array_equal(*held_out)


def test_something_is_learnt_from_other_sources(toy: Corpus) -> None:
    fake = np.array([item.fake for item in toy.utterances])
    logits = hold_out(toy, MixtureSettings(), seed=0).logits
    for values in logits.values():
        assert np.mean((values > 0) == fake) > 0.9


def test_the_graph_gives_what_was_trained(toy: Corpus, tmp_path: Path) -> None:
    mixture = train(toy, MixtureSettings())
    file = export(SpoofClassifier(MixtureGraph(mixture)), tmp_path)
    onnx.checker.check_model(file)
    session = _session(file)
    for length in (0.4, 1.7, 5.9):
        batch = np.stack([sound(seed, length)[: round(length * 15_000)] for seed in range(3)])
        with torch.inference_mode():
            expected = mixture.logits(FineStructure()(torch.from_numpy(batch)).numpy())
        (found,) = session.run(["logit"], {"samples": batch})
        assert found.shape == (3, 1)
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_gate_hears_the_channel(toy: Corpus) -> None:
    mixture = train(toy, MixtureSettings())
    for index, family in enumerate(FAMILIES.values()):
        (channel,) = family.channels
        shares = {name: mixture.gate.shares(rows)[:, index].mean() for name, rows in toy.table.items()}
        assert shares[channel] == max(shares.values()) > min(shares.values())


def test_kin_teach_an_expert_whatever_their_colour(toy: Corpus) -> None:
    settings, rows = MixtureSettings(), toy.table["noise_20db"]
    coloured = replace(toy, table=toy.table | {"clean": 3 * toy.table["clean"] + 7})
    alone = replace(toy, families=FAMILIES | {"noisy": Family(("noise_20db",))})
    taught, otherwise, untaught = (train(corpus, settings).heads[1].score(rows) for corpus in (toy, coloured, alone))
    np.testing.assert_allclose(taught, otherwise, atol=0.05)
    assert np.abs(taught - untaught).max() > 0.2


def _session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def test_the_committed_model_is_small_and_takes_any_length() -> None:
    repository = ModelRepository(Path(__file__).parents[2] / "model_repository")
    card = repository.verified("spoof_classifier")
    assert repository.model_file(card).stat().st_size < 5_000_000
    engine = EmbeddedEngine(repository)
    for length in (4_800, 16_001, 96_000):
        logit = engine.run("spoof_classifier", {"samples": np.resize(sound(1, 6.0), length)[None]})["logit"]
        assert logit.shape == (1, 1)
        assert np.isfinite(logit).all()
    halves = sound(1, 4.0)
    halves[len(halves) // 2 :] = 0.0
    for samples in (halves, np.zeros(64_000, np.float32), np.full(64_000, 0.1, np.float32)):
        assert np.isfinite(engine.run("spoof_classifier", {"samples": samples[None]})["logit"]).all()


# -- splits, weights, channels, twins --


def test_no_source_and_no_speaker_is_on_both_sides() -> None:
    recurring = Utterance("x", True, "source9", "speaker7", "", "", np.zeros(1, np.float32))
    utterances = [recurring, *toy_utterances()]
    folds = source_folds(utterances, seed=0, folds=3)
    assert frozenset.union(*folds) == {item.source for item in utterances}
    for learnt, scored in held_out_splits(utterances, folds):
        ours = [item for item, chosen in zip(utterances, learnt, strict=True) if chosen]
        theirs = [item for item, chosen in zip(utterances, scored, strict=True) if chosen]
        assert not {item.source for item in ours} & {item.source for item in theirs}
        assert not {item.speaker for item in ours} & {item.speaker for item in theirs}


def test_no_system_that_is_scored_is_trained_on() -> None:
    utterances = [replace(item, system=f"system{index % 7}") for index, item in enumerate(toy_utterances())]
    times = np.zeros(len(utterances))
    for learnt, scored in held_out_system_splits(utterances, seed=0, folds=3):
        ours = [item for item, chosen in zip(utterances, learnt, strict=True) if chosen]
        theirs = [item for item, chosen in zip(utterances, scored, strict=True) if chosen]
        assert not {item.system for item in ours if item.fake} & {item.system for item in theirs if item.fake}
        assert not {item.speaker for item in ours} & {item.speaker for item in theirs if not item.fake}
        times += scored
    np.testing.assert_array_equal(times, 1)


def test_a_few_of_every_class_and_source_are_chosen() -> None:
    utterances = toy_utterances()
    chosen = few_of_each(utterances, 3)
    assert chosen.sum() == 3 * len({(item.fake, item.source) for item in utterances})
    again = few_of_each(utterances[::-1], 3)
    np.testing.assert_array_equal(again[::-1], chosen)


def test_a_published_page_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert by_hand(page) == ""
    page.write_text(report({"One": ["row"]}, "make it", "## What was tried\n\nMuch.\n"), encoding="utf-8")
    assert by_hand(page) == "## What was tried\n\nMuch.\n"


def test_weights_even_out_labels_and_sources() -> None:
    fake = np.array([False] * 10 + [True] * 5)
    sources = ["a"] * 8 + ["b"] * 2 + ["a"] * 5
    weights = cell_weights(fake, sources)
    assert weights.sum() == pytest.approx(15)
    assert weights[:8].sum() == pytest.approx(weights[8:10].sum())
    assert weights[:10].sum() == pytest.approx(weights[10:].sum())
    np.testing.assert_allclose(cell_weights(fake, sources, power=0.0)[:10], 0.75)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_channel_keeps_length_and_changes_the_sound(name: str) -> None:
    samples = sound(5, 1.5)
    made = DEGRADATIONS[name](samples, np.random.default_rng(0))
    assert made.shape == samples.shape
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    assert made.std() == pytest.approx(samples.std(), rel=0.5)
    assert not np.array_equal(made, samples)


def test_draws_of_a_codec_differ() -> None:
    samples = sound(5, 1.5)
    first, again, other = (through_some_aac(samples, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert samples.size - 1152 <= min(first.size, other.size) <= max(first.size, other.size) <= samples.size
    shared = min(first.size, other.size)
    assert np.abs(first[:shared] - other[:shared]).max() > 0.01


def test_both_sets_are_read(tmp_path: Path) -> None:
    columns = ("file", "label", "group", "sha256", "source", "speaker", "system", "attack")
    for name in ("speech_train", "speech_more_train"):
        rows = [columns]
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for label in ("bonafide", "spoof"):
                soundfile.write(tmp_path / "a.flac", sound(1, 0.5), 16_000)
                archive.write(tmp_path / "a.flac", f"{label}.flac")
                rows.append((f"{label}.flac", label, "g", f"{name}{label}", "src", "spk", "sys", "tts"))
        (tmp_path / f"{name}.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    found = read_utterances(tmp_path)
    assert [item.fake for item in found] == [False, True, False, True]
    assert len({item.key for item in found}) == 4
    assert set(CHANNELS) >= {CLEAN, *DEGRADATIONS}


# -- constant-Q cepstra --


def constant_q_reference(samples: Sound, hertz: float) -> Floats:
    """Amplitude of one bin every 128 samples by plain sums at the full rate, frames within the sound only."""
    length = QUALITY * 16_000 / hertz
    half = int(length / 2)
    time = np.arange(-half, half + 1)
    window = 0.5 + 0.5 * np.cos(2 * np.pi * time / length)
    kernel = window / window.sum() * np.exp(-2j * np.pi * hertz / 16_000 * time)
    padded = np.pad(samples.astype(np.float64), half)
    return np.array([abs(padded[at : at + kernel.size] @ kernel) for at in range(0, samples.size, 128)])


def test_the_constant_q_transform_matches_plain_sums_in_every_octave() -> None:
    samples = sound(6, 1.7, buzzing=True)
    with torch.inference_mode():
        ours = np.sqrt(ConstantQ()(torch.from_numpy(samples)[None])[0].numpy())
    assert ours.shape == (1 + (samples.size - 1) // 128, 168)
    for place in range(5, 168, 24):
        expected = constant_q_reference(samples, centres()[place])
        error = np.abs(ours[: expected.size, place] - expected)
        assert error.max() < 0.05 * expected.max()
        assert error.mean() < 0.01 * expected.mean()


def test_cepstra_are_the_cosine_transform_of_evenly_spaced_log_power() -> None:
    hertz = centres()[::-1]
    bins = np.log(hertz)[::-1].astype(np.float32)
    even = np.interp(np.linspace(hertz[0], hertz[-1], 128), hertz, np.log(hertz))
    expected = fft.dct(even, norm="ortho")[:30]
    np.testing.assert_allclose(bins @ cepstral_matrix(), expected, rtol=1e-4, atol=1e-4)


def test_the_cepstral_network_repeats_itself_and_exports(tmp_path: Path) -> None:
    sounds = torch.from_numpy(np.stack([sound(seed, 1.2, buzzing=bool(seed % 2)) for seed in range(8)])[:, :18_000])
    fake = np.arange(8) % 2 == 1
    with torch.inference_mode():
        table = {"clean": ExcerptCepstra()(sounds).numpy()}
    networks = [fit(table, fake, np.ones(8), Schedule(steps=12, batch=8), seed=1) for _ in range(2)]
    np.testing.assert_array_equal(*(score(network, table["clean"]) for network in networks))
    session = _session(export(CepstralClassifier(networks[0]), tmp_path))
    (found,) = session.run(["logit"], {"samples": sounds.numpy()})
    np.testing.assert_allclose(found[:, 0], score(networks[0], table["clean"]), rtol=1e-4, atol=1e-4)
