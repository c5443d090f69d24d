"""The capacity model's arithmetic, and the simulation against what queueing theory says."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from benchmarks.capacity.arithmetic import arithmetic
from benchmarks.capacity.assumptions import Assumptions
from benchmarks.capacity.limits import VALUES, limits
from benchmarks.capacity.model import ClipCost, gpu_seconds, load_measured, mean_clip, needs, network_seconds
from benchmarks.capacity.simulation import Scenario, Simulation
from services.common.models import ModelRepository

COST = ClipCost(
    cores={"gateway": 1.0, "visual": 0.5, "audio": 0.1, "fusion": 0.05, "triton": 2.0},
    gpu=0.05,
    file_bytes=1e6,
    visual_bytes=60e6,
    audio_bytes=1e6,
    triton_bytes=40e6,
)


def simulate(scenario: Scenario, **changes: float) -> Simulation:
    simulation = Simulation(scenario, COST, dataclasses.replace(Assumptions(), **changes), target=0.6, seed=1)
    simulation.run()
    return simulation


def test_needs_follow_from_seconds_and_rate() -> None:
    found = needs(600, COST, Assumptions(core_hour=1.0, gpu_hour=10.0), utilisation=0.5)
    assert found.cores == {"gateway": 20.0, "visual": 10.0, "audio": 2.0, "fusion": 1.0}
    assert found.gpus == 1
    assert found.nodes == pytest.approx(33 / 16)
    assert found.usd_an_hour == pytest.approx(43.0)
    assert found.usd_a_thousand == pytest.approx(43.0 / 36)
    assert found.gigabits == pytest.approx(10 * 101e6 * 8 / 1e9)


def test_nodes_are_counted_by_the_network_where_that_is_scarcer() -> None:
    found = needs(600, COST, Assumptions(node_gigabits=1, network_share=0.5), utilisation=0.5)
    assert found.nodes == pytest.approx(10 * 101e6 * 8 / 0.5e9)


def test_a_gpu_starts_operators_and_multiplies() -> None:
    assumed = Assumptions(gpu_teraflops=1, gpu_efficiency=0.5, gpu_operator_microseconds=10, gpu_batch_gain=1)
    use = {"net": {"calls": 3, "items": 24}}
    models = {"net": {"operators": 100, "multiplications": 1_000_000_000}}
    assert gpu_seconds(use, models, assumed) == pytest.approx(3 * 100 * 10e-6 + 24 * 1e9 * 2 / 0.5e12)


def test_the_mean_clip_weighs_the_classes() -> None:
    stages = dict.fromkeys(("gateway", "visual", "audio", "fusion", "triton"), 1.0)

    def clip(scale: float) -> dict:
        return {
            "file_bytes": scale,
            "processor_seconds": {name: scale * value for name, value in stages.items()},
            "hop_bytes": {"gateway_to_visual": 8 * scale},
            "model_use": {},
        }

    assumed = Assumptions(mix={"a": 0.25, "b": 0.75}, core_speed=2.0)
    found = mean_clip(assumed, {"clips": {"a": clip(1), "b": clip(5)}, "models": {}})
    assert found.cores["visual"] == pytest.approx(2.0)
    assert found.visual_bytes == pytest.approx(32.0)
    assert found.audio_bytes == 0.0


def test_a_calm_load_waits_for_nothing_but_its_own_work() -> None:
    calm = Scenario(30, seconds=1200, burst=1.0, loss_at=10_000)
    waits = [seconds for _, seconds in simulate(calm, spread=1e-6).record.latencies]
    own = COST.cores["gateway"] + COST.cores["visual"] + COST.gpu + COST.cores["fusion"]
    own += network_seconds(COST, Assumptions())
    assert min(waits) == pytest.approx(own, rel=0.05)
    assert np.median(waits) < 1.2 * own


def test_servers_are_used_as_much_as_the_work_says() -> None:
    calm = Scenario(120, seconds=900, burst=1.0, loss_at=10_000)
    samples = simulate(calm).record.samples[4:]
    used = np.mean([sample["gateway_use"] * sample["gateway_servers"] for sample in samples])
    assert used == pytest.approx(2.0, rel=0.15)  # two clips a second of one second each


def test_a_burst_is_refused_at_first_and_then_served() -> None:
    scenario = Scenario(120, seconds=1500, burst=4.0, burst_seconds=(300.0, 1400.0), loss_at=10_000)
    record = simulate(scenario, patience_seconds=5).record
    early = sum(300 <= when < 450 for when in record.refused)
    late = sum(1200 <= when < 1400 for when in record.refused)
    assert early > 0
    assert late == 0
    assert max(sample["gateway_servers"] for sample in record.samples) >= 8


def test_what_was_on_a_lost_node_is_done_again_and_servers_come_back() -> None:
    scenario = Scenario(300, seconds=900, burst=1.0, loss_at=300, lost_share=0.5)
    record = simulate(scenario).record
    before = max(sample["gateway_servers"] for sample in record.samples if sample["time"] < 300)
    lowest = min(sample["gateway_servers"] for sample in record.samples if sample["time"] > 300)
    assert lowest <= before * 0.5 + 1
    assert record.samples[-1]["gateway_servers"] >= 0.8 * before
    arrived = len(record.latencies) + len(record.refused)
    assert arrived == pytest.approx(300 * 15, rel=0.06)  # nothing is lost


def test_a_seed_gives_the_same_run() -> None:
    scenario = Scenario(60, seconds=300, burst=1.0, loss_at=10_000)
    assert simulate(scenario).record.latencies == simulate(scenario).record.latencies


def test_limits_come_in_order_and_say_what_moves_them() -> None:
    found = limits(COST, Assumptions())
    rates = [each.clips_a_minute for each in found]
    assert rates == sorted(rates)
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    gateway = next(each for each in found if "gateway pods" in each.what)
    assert gateway.remedy == "gateway.autoscaling.maxReplicas"


def test_multiplications_are_counted_from_the_graph(tmp_path) -> None:
    """A 3 × 3 convolution of 3 to 8 channels over 10 × 10 pixels, then 8 to 2 in a matrix product."""
    weights = {"kernel": np.zeros((8, 3, 3, 3), np.float32), "matrix": np.zeros((8, 2), np.float32)}
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["maps", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    constants.append(numpy_helper.from_array(np.array([2, 3], np.int64), "axes"))
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 10, 10])
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "tiny", [given], [answer], constants)
    file = tmp_path / "tiny" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), file)
    card = dict.fromkeys(("sha256", "trained_on", "headline", "licence"), "x") | {"version": "1"}
    (tmp_path / "tiny" / "card.json").write_text(json.dumps(card))
    found = arithmetic(ModelRepository(tmp_path), "tiny")
    assert found.multiplications == 10 * 10 * 8 * 3 * 9 + 8 * 2
    assert found.operators == 3


def test_pods_of_the_chart_hold_what_was_measured() -> None:
    """Limits above the peak of two of the largest clips at once; requests near it; no more clips at once than that."""
    units = {"Mi": 2**20, "Gi": 2**30}
    peaks = load_measured()["peak_bytes_with_two_1080p_clips_at_once"]
    values = yaml.safe_load(VALUES.read_text())
    for name in ("gateway", "visual", "audio", "fusion"):
        limit = values[name]["resources"]["limits"]["memory"]
        assert peaks[name] * 1.2 < int(limit[:-2]) * units[limit[-2:]], name
    assert values["gateway"]["settings"]["analyses"] <= 2
    assert values["visual"]["settings"]["calls_at_once"] <= 2
