"""The ensemble's members and weights: parity with what is served, weights that must be earned, repeatable runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from services.common.models import ModelRepository  # noqa: E402
from services.visual.ensemble import FILE, read_ensemble  # noqa: E402
from services.visual.scoring import FRAME_MODEL  # noqa: E402
from training.calibration import Line  # noqa: E402
from training.checkpoints.catalogue import ARCHITECTURES, built  # noqa: E402
from training.crop_models import PARITY_TOLERANCE, REPOSITORY, parity_gap  # noqa: E402
from training.data import data_root, zip_set  # noqa: E402
from training.ensemble.members import PUBLISHED, WholeFace, load_published, new_members  # noqa: E402
from training.ensemble.probe import ShallowProbe, fit_unit  # noqa: E402
from training.ensemble.serving import BROAD, OUTPUTS, PROBE, SEEN, CalibratedMember, weighed  # noqa: E402
from training.ensemble.training import JointRun  # noqa: E402
from training.ensemble.weighing import Judged, cross_fitted, weigh  # noqa: E402
from training.evaluation.stills import StillScorer  # noqa: E402
from training.frame.selection import held_out_rows  # noqa: E402
from training.frame.training import Plan  # noqa: E402
from training.metrics import auc  # noqa: E402

pytestmark = pytest.mark.training
NAMES = (FRAME_MODEL, "meso4", "mesoinception4")


class TwoBatches:
    """Stands where the batch source does: the same two batches again and again, of crops that are easily told apart."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        random = np.random.default_rng(number % 2)
        labels = np.tile(np.array([0, 1], np.float32), 2)
        crops = random.integers(0, 120, (4, 224, 224, 3)) + labels[:, None, None, None] * 120
        return crops.astype(np.uint8), labels


@pytest.mark.parametrize("name", ["resnet18", "meso4", "mesoinception4"])
def test_an_exported_member_equals_torch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.crop_models.REPOSITORY", tmp_path)
    from training.crop_models import export  # noqa: PLC0415

    torch.manual_seed(0)
    model = CalibratedMember(new_members()[name].eval(), Line(1.3, 0.4))
    assert parity_gap(model, export(model, name, {"logit": "1"})) <= PARITY_TOLERANCE


def test_the_exported_probe_equals_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.crop_models.REPOSITORY", tmp_path)
    from training.crop_models import export  # noqa: PLC0415

    torch.manual_seed(0)
    model = CalibratedMember(ShallowProbe(), Line(1.3, 0.4))
    path = export(model, "shallow_probe", dict.fromkeys(OUTPUTS[PROBE], "1"))
    assert parity_gap(model, path) <= PARITY_TOLERANCE


def test_the_probe_s_unit_finds_what_its_features_hold() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    values = random.normal(5.0, 3.0, (400, 6))
    values[:, 2] += 4.0 * labels
    weights, bias = fit_unit(values, labels, [f"source{at % 7}" for at in range(400)], strength=1.0)
    assert int(np.argmax(np.abs(weights))) == 2
    assert (((values @ weights + bias) > 0) == (labels == 1)).mean() > 0.7


def test_a_run_that_stops_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    def run(steps: int, file: Path) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        members = torch.nn.ModuleDict({"meso4": new_members()["meso4"]})
        plan = Plan(steps=8, seed=3, rate=1e-3)
        state: dict[str, torch.Tensor] = JointRun(members, plan, file).train(TwoBatches(steps)).state_dict()  # type: ignore[arg-type]
        return state

    whole = run(8, tmp_path / "whole.pt")
    run(3, tmp_path / "halves.pt")
    resumed = run(8, tmp_path / "halves.pt")
    assert all(torch.allclose(whole[name].float(), resumed[name].float(), atol=1e-5) for name in whole)


def made(count: int = 600, seed: int = 0) -> Judged:
    """Crops of which the first half is familiar: one network knows those, another the rest, a third nothing."""
    random = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.int64)
    truth, familiar = 2.0 * labels - 1.0, np.arange(count) < count // 2
    columns = [
        truth * np.where(familiar, 1.5, 0.2) + random.normal(0, 1.5, count),
        truth * np.where(familiar, 0.1, 0.8) + random.normal(0, 1.5, count),
        random.normal(0, 1, count),
    ]
    shares = np.where(familiar, 0.95, 0.05)
    cells = np.where(familiar, "dfdc_faces_val", "unseen_sources").astype(object)
    sources = np.array([str(at // 4) for at in range(count)])
    return Judged(np.stack(columns, axis=1), shares, labels, cells, sources)


def test_each_sum_listens_to_those_who_know() -> None:
    fitted = weigh(made(4000), NAMES)
    familiar, unfamiliar = fitted.familiar.weights, fitted.unfamiliar.weights
    assert familiar[FRAME_MODEL] > 3 * familiar["meso4"]
    assert unfamiliar["meso4"] > unfamiliar[FRAME_MODEL]
    assert max(familiar["mesoinception4"], unfamiliar["mesoinception4"]) < 0.1 * familiar[FRAME_MODEL]


def test_a_member_that_is_upside_down_gets_no_weight() -> None:
    judged = made()
    judged.logits[:, 1] *= -1
    fitted = weigh(judged, NAMES)
    assert fitted.familiar.weights["meso4"] == fitted.unfamiliar.weights["meso4"] == 0


def test_a_part_that_a_member_has_seen_has_no_say_on_it() -> None:
    judged = made(1200)
    seen = np.arange(1200) >= 900
    judged.cells[seen] = SEEN["meso4"]
    judged.logits[:, 1] = np.where(seen, 6.0, -0.3) * (2.0 * judged.labels - 1.0)
    fitted, _ = weighed(judged, NAMES)
    assert fitted.unfamiliar.weights["meso4"] == 0


def test_published_weights_say_fake_with_a_high_number() -> None:
    if not (data_root() / "checkpoints" / PUBLISHED["meso4"]).is_file():
        pytest.skip("the published weights are not there")
    members = new_members()
    load_published(members)
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8))
    with torch.inference_mode():
        ours = members["meso4"].eval()(crops)
        path = data_root() / "checkpoints" / PUBLISHED["meso4"]
        published = WholeFace(built(ARCHITECTURES["meso4"], path)).eval()(crops)
    assert torch.allclose(ours, -published, atol=1e-5)  # theirs is the log-odds of a real face


def test_weights_of_held_out_rows_are_calibrated() -> None:
    judged = made(4000)
    probabilities = cross_fitted(judged, NAMES)
    confident = probabilities > 0.8
    assert judged.labels[confident].mean() == pytest.approx(probabilities[confident].mean(), abs=0.03)


@pytest.mark.skipif(not (REPOSITORY / FILE).is_file(), reason="the ensemble is not trained yet")
def test_the_served_ensemble_is_the_one_that_was_fitted() -> None:
    content = json.loads((REPOSITORY / FILE).read_text())
    ensemble = read_ensemble(ModelRepository(REPOSITORY))
    assert {*ensemble.members, *content["left_out"]} >= {
        FRAME_MODEL,
        BROAD,
        PROBE,
        "resnet18",
        "meso4",
        "mesoinception4",
    }
    assert ensemble.gate == PROBE
    for part in ("dfdc_faces_val", "unseen_sources", "mesonet_faces_train"):
        assert content["metrics"][part]["auc"]["n"] > 100


@pytest.mark.skipif(not (data_root() / "faces").is_dir(), reason="the faces are not there")
def test_the_served_gate_tells_familiar_pictures_from_others() -> None:
    scorer = StillScorer(REPOSITORY)

    def familiarity(name: str) -> npt.NDArray[np.float64]:
        held = zip_set(name)
        rows = held_out_rows(held.examples) if name == "manipulated_faces_train" else np.arange(len(held.examples))
        chosen = rows[np.linspace(0, len(rows) - 1, 16).astype(int)]
        crops = [scorer.cut(held.picture(held.examples[row]))[0] for row in chosen.tolist()]
        return np.array([answer["familiarity"] for answer in scorer.answers(PROBE, crops)])

    familiar, others = familiarity("dfdc_faces_val"), familiarity("manipulated_faces_train")
    assert np.median(familiar) > 1
    assert np.median(others) < -1
    assert auc(np.repeat([1, 0], 16), np.concatenate([familiar, others])) > 0.9
