"""The served spectral front end against scipy and plain loops, and training that repeats itself."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import onnx
import onnxruntime
import soundfile
import torch
from scipy import fft, signal, stats

from services.audio.preparation import prepare
from services.common.inference import EmbeddedEngine
from services.common.models import ModelRepository
from training.audio.cepstral_network import CepstralClassifier, ExcerptCepstra, Schedule, fit, score
from training.audio.channels import CHANNELS, CLEAN, DEGRADATIONS
from training.audio.comparison import by_hand, few_of_each, report
from training.audio.constant_q import QUALITY, ConstantQ, centres, cepstral_matrix
from training.audio.corpus import Utterance, read_utterances
from training.audio.evaluation import held_out_splits, held_out_system_splits, source_folds
from training.audio.export import MixtureGraph, SpoofClassifier, export
from training.audio.features import FEATURES, FineStructure
from training.audio.heads import cell_weights
from training.audio.mixture import MixtureSettings
from training.audio.training import Corpus, hold_out, train

pytestmark = pytest.mark.training

Sound = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
FAMILIES = {"clean": ("clean",), "noisy": ("noise_20db",)}


def sound(seed: int, seconds: float = 2.0, *, buzzing: bool = False) -> Sound:
    """Coloured noise under a syllable-like envelope, with or without a pulse train in it."""
    rng = np.random.default_rng(seed)
    n = round(seconds * 16_000)
    spectrum = np.fft.rfft(rng.standard_normal(n)) * (1 + np.arange(n // 2 + 1) / 200.0) ** -1.0
    envelope = 0.2 + np.abs(np.sin(2 * np.pi * 1.7 * np.arange(n) / 16_000 + rng.uniform(0, 3)))
    pulses = (np.arange(n) % 133 == 0) * (0.5 if buzzing else 0.0)
    return prepare(((np.fft.irfft(spectrum, n) + pulses) * envelope).astype(np.float32))


def spectra(samples: Sound, window: int, hop: int, fft: int) -> npt.NDArray[np.complex128]:
    hann = signal.get_window("hann", window)
    _, _, values = signal.stft(
        samples.astype(np.float64),
        window=hann,
        nperseg=window,
        noverlap=window - hop,
        nfft=fft,
        boundary=None,
        padded=False,
        detrend=False,
    )
    return values.T * hann.sum()


def spectrogram(samples: Sound, window: int, hop: int, fft: int) -> Floats:
    return np.abs(spectra(samples, window, hop, fft)) ** 2


def in_bands(values: Floats, bands: int) -> list[tuple[Floats, Floats]]:
    """For each band of equal width over bins 1…: the columns it touches and the share of each."""
    bins = values.shape[1] - 1
    width = bins / bands
    found = []
    for band in range(bands):
        low, high = band * width, (band + 1) * width
        columns = np.arange(int(low), int(np.ceil(high - 1e-9)))
        share = np.minimum(columns + 1, high) - np.maximum(columns, low)
        found.append((values[:, columns + 1], share / share.sum()))
    return found


def running_mean(values: Floats, axis: int, width: int) -> Floats:
    moved = np.moveaxis(values, axis, 0)
    means = [moved[max(0, i - width // 2) : i + width // 2 + 1].mean(0) for i in range(len(moved))]
    return np.moveaxis(np.array(means), 0, axis)


def log_floored(power: Floats, floor: float = 1e-7) -> Floats:
    return np.log(power + floor * power.mean())


def texture(samples: Sound) -> Floats:
    power = spectrogram(samples, 400, 160, 512)
    banded = np.stack([part @ share for part, share in in_bands(power, 80)], 1)
    level = log_floored(banded)
    level -= level.mean(1, keepdims=True)
    energy = banded.mean(1)
    loud = energy >= at_share(energy, 0.4)
    detail = level - running_mean(level, 1, 9)
    change = (level[2:] - level[:-2]) / 2
    return np.concatenate(
        [level[loud].std(0), detail[loud].mean(0), detail[loud].std(0), change.std(0) / (level.std(0) + 1e-3)]
    )


def moments(residual: Floats, bands: int = 40, smallest: float = 1e-12) -> list[Floats]:
    rows = []
    for part, share in in_bands(residual, bands):
        weight = np.broadcast_to(share, part.shape) / len(part)
        mean = (weight * part).sum()
        deviation = np.sqrt(max((weight * (part - mean) ** 2).sum(), smallest))
        skewness = (weight * (part - mean) ** 3).sum() / deviation**3
        rows.append([deviation, skewness, (weight * np.abs(part)).sum() / deviation])
    return list(np.array(rows).T)


def persistence(residual: Floats, bands: int = 40, smallest: float = 1e-12) -> Floats:
    rows = []
    for part, share in in_bands(residual, bands):
        mean = (part.mean(0) * share).sum()
        variance = ((part**2).mean(0) * share).sum() - mean**2
        lagged = ((part[1:] * part[:-1]).mean(0) * share).sum() - mean**2
        rows.append(lagged / max(variance, smallest))
    return np.array(rows)


def at_share(energy: Floats, share: float) -> float:
    return float(np.sort(energy)[int(np.ceil(share * (energy.size - 1) - 1e-3))])


def thirds(power: Floats) -> list[npt.NDArray[np.bool_]]:
    energy = power.sum(1)
    low, high = at_share(energy, 1 / 3), at_share(energy, 2 / 3)
    return [energy < low, (energy >= low) & (energy < high), energy >= high]


def residual_statistics(samples: Sound, window: int, hop: int) -> Floats:
    power = spectrogram(samples, window, hop, window)
    level = log_floored(power)
    fine, quick = level - running_mean(level, 1, 9), level - running_mean(level, 0, 5)
    groups = [np.ones(len(power), bool), *(thirds(power) if window == 512 else [])]
    shapes = [part for rows in groups for part in (*moments(fine[rows]), *moments(quick[rows]))]
    return np.concatenate([*shapes, persistence(fine)])


def prominence(samples: Sound, window: int, hop: int) -> Floats:
    level = log_floored(spectrogram(samples, window, hop, window), 0.1)
    fine, quick = level - running_mean(level, 1, 9), level - running_mean(level, 0, 5)
    return np.concatenate([*moments(fine, 20, 1e-6), *moments(quick, 20, 1e-6), persistence(fine, 20, 1e-6)])


def phase_agreement(samples: Sound, window: int, hop: int) -> Floats:
    phase = np.angle(spectra(samples, window, hop, window))
    along_frequency = np.diff(phase, axis=1)
    rows = []
    for difference in (np.diff(phase, 2, axis=0), np.diff(phase, 2, axis=1), np.diff(along_frequency, axis=0)):
        mean = np.zeros(window // 2 + 1, complex)
        mean[: difference.shape[1]] = np.exp(1j * difference).mean(0)
        banded = np.array([part[0] @ share for part, share in in_bands(mean[None], 20)])
        rows += [banded.real, banded.imag]
    return np.concatenate(rows)


def modulation(samples: Sound) -> Floats:
    power = spectrogram(samples, 128, 32, 128)
    level = log_floored(np.stack([part @ share for part, share in in_bands(power, 16)], 1))
    level -= level.mean(0)
    hann = signal.get_window("hann", 128)[:, None]
    starts = range(0, len(level) - 127, 64)
    found = np.mean([np.abs(np.fft.rfft(level[at : at + 128] * hann, axis=0)) ** 2 for at in starts], 0)
    rates = found[1:].reshape(32, 2, 16).sum(1)
    return np.log(rates / rates.sum(0) + 1e-6).T.ravel()


def reference(samples: Sound) -> Floats:
    resolutions = ((256, 128), (512, 128), (1024, 256))
    return np.concatenate(
        [
            texture(samples),
            *(residual_statistics(samples, *size) for size in resolutions),
            *(phase_agreement(samples, *size) for size in resolutions[1:]),
            modulation(samples),
            *(prominence(samples, *size) for size in resolutions[1:]),
        ]
    )


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.7])
def test_features_match_an_independent_reference(seconds: float) -> None:
    samples = sound(3, seconds)
    with torch.inference_mode():
        ours = FineStructure()(torch.from_numpy(samples)[None])[0].numpy()
    expected = reference(samples)
    assert ours.shape == (FEATURES,)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_the_reference_itself_agrees_with_scipy_on_moments() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(50, 41))
    deviation, skewness, _ = moments(values)
    for band in range(40):
        assert deviation[band] == pytest.approx(values[:, band + 1].std())
        assert skewness[band] == pytest.approx(stats.skew(values[:, band + 1]))


def test_features_ignore_loudness() -> None:
    samples = torch.from_numpy(sound(4))[None]
    with torch.inference_mode():
        loud, quiet = FineStructure()(samples), FineStructure()(samples * 0.01)
    torch.testing.assert_close(loud, quiet, rtol=1e-3, atol=1e-3)


def test_features_of_silence_and_of_half_silence_are_finite() -> None:
    silent = torch.zeros(1, 20_000)
    partly = torch.cat([silent, torch.from_numpy(sound(4, 0.5))[None]], 1)
    with torch.inference_mode():
        assert torch.isfinite(FineStructure()(silent)).all()
        assert torch.isfinite(FineStructure()(partly)).all()


# -- training --


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
    for index, (channel,) in enumerate(FAMILIES.values()):
        shares = {name: mixture.gate.shares(rows)[:, index].mean() for name, rows in toy.table.items()}
        assert shares[channel] == max(shares.values()) > min(shares.values())


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
