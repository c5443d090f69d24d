from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import onnxruntime
import torch

from services.common.models import ModelRepository
from services.fusion.synchrony import HOP_SLOTS, SYNC_MODEL, WINDOW_SLOTS
from training.metrics import auc
from training.sync.alignment import moved, source_lags
from training.sync.data import BANDS, SEGMENT, Sampler, TalkingClip
from training.sync.evaluation import IN_SYNC, STILL, SWAPPED, calibrate, log_odds, trials
from training.sync.export import served, write_model
from training.sync.fitting import Schedule, fit
from training.sync.network import HOP, LAGS, LARGEST_LAG, WINDOW, SyncNetwork, lag_curve, lag_similarity

pytestmark = pytest.mark.training
WIDTH, VOICE_WIDTH = 80, 160
SHORT = Schedule(steps=60, batch=12)


def talker(number: int, lag: int = 0, slots: int = 150) -> TalkingClip:
    """Lips that open with the loudness of a voice, which comes ``lag`` slots late."""
    random = np.random.default_rng(number)
    steps = random.normal(size=(slots + 40, 3))
    hidden = np.apply_along_axis(lambda column: np.convolve(column, np.ones(4) / 2, mode="same"), 0, steps)
    mixing = np.random.default_rng(1000)
    lips, bands = mixing.normal(size=(3, WIDTH)) * 0.02, mixing.normal(size=(3, BANDS))
    shown = hidden[20 : 20 + slots]
    heard = hidden[20 - lag : 20 - lag + slots]
    motion = shown @ lips + random.normal(0, 0.3, WIDTH) + random.normal(0, 0.002, (slots, WIDTH))
    rows = np.repeat(heard @ bands, 4, axis=0) + random.normal(0, 0.3, (4 * slots, BANDS)) - 8
    voice = rows.reshape(slots, VOICE_WIDTH)
    return TalkingClip(f"t{number}", f"g{number}", motion.astype(np.float32), voice.astype(np.float32), lag_known=True)


@pytest.fixture(scope="module")
def network() -> SyncNetwork:
    return fit([talker(number) for number in range(12)], 0, SHORT)


def test_the_network_and_the_service_agree_on_windows() -> None:
    assert (WINDOW, HOP) == (WINDOW_SLOTS, HOP_SLOTS)


def test_source_lags_are_found_and_undone() -> None:
    lags = [0, 0, 0, 0, 0, 0, 3, -2, 4, 0, -3, 0]
    clips = [talker(number, lag) for number, lag in enumerate(lags)]
    assert source_lags(clips) == lags
    assert set(source_lags([moved(clip, lag) for clip, lag in zip(clips, lags, strict=True)])) == {0}


def test_segments_come_from_all_groups_equally() -> None:
    clips = [
        talker(0),
        talker(1),
        *(TalkingClip("x", "g2", c.motion, c.voice, lag_known=True) for c in [talker(2)] * 9),
    ]
    batch = Sampler(clips, np.random.default_rng(0)).batch(9)
    assert batch.motion.shape == (9, SEGMENT, WIDTH)
    assert batch.voice.shape == (9, SEGMENT + 2 * LARGEST_LAG, VOICE_WIDTH)
    assert np.bincount(batch.groups).tolist() == [3, 3, 3]


@pytest.mark.parametrize("lag", [-12, -3, 0, 5, 15])
def test_the_lag_curve_peaks_at_the_lag(lag: int) -> None:
    random = np.random.default_rng(5)
    rows = torch.nn.functional.normalize(torch.from_numpy(random.normal(size=(1, 130, 16))), dim=-1)
    motion, voice = rows[:, 20:110], rows[:, 20 - lag : 110 - lag]
    curve = lag_curve(lag_similarity(motion, voice))[0]
    assert curve.shape == (LAGS,)
    assert int(curve.argmax()) - LARGEST_LAG == lag
    assert float(curve.max()) == pytest.approx(1.0)


def test_towers_learn_to_tell_a_strangers_voice(network: SyncNetwork) -> None:
    unseen = [talker(number) for number in range(50, 58)]
    scored = trials(network, unseen, unseen, 0)
    calibration = calibrate(scored)
    for kind in (SWAPPED, STILL):
        chosen = [trial for trial in scored if trial.kind in {kind, IN_SYNC}]
        values = [log_odds(trial, calibration) for trial in chosen]
        assert auc([trial.kind == kind for trial in chosen], values) > 0.95


def test_the_same_seed_gives_the_same_weights(network: SyncNetwork) -> None:
    again = fit([talker(number) for number in range(12)], 0, SHORT)
    for name, values in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], values, atol=1e-5, rtol=1e-4)


def test_the_exported_graph_equals_the_network(network: SyncNetwork, tmp_path: Path) -> None:
    unseen = [talker(number) for number in range(50, 54)]
    module = served(network, calibrate(trials(network, unseen, unseen, 0)))
    path = write_model(module, unseen[0], tmp_path)
    session = onnxruntime.InferenceSession(path)
    random = np.random.default_rng(6)
    for batch, slots in ((1, WINDOW), (3, 251), (2, 99)):
        motion = random.normal(size=(batch, slots, WIDTH)).astype(np.float32)
        voice = random.normal(size=(batch, slots, VOICE_WIDTH)).astype(np.float32)
        found = session.run(None, {"motion": motion, "voice": voice})
        with torch.inference_mode():
            expected = module(torch.from_numpy(motion), torch.from_numpy(voice))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), atol=1e-4)
        assert found[2].shape == (batch, (slots - WINDOW) // HOP + 1)


def test_the_served_model_is_the_one_its_card_describes() -> None:
    card = ModelRepository(Path(__file__).parents[2] / "model_repository").verified(SYNC_MODEL)
    assert card.details["metrics"]["swapped, held-out identities"]["auc"]["value"] > 0.9
