"""The arithmetic of the speed benchmark: what its summary makes of rows."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.speed_summary import geomean, summary
from benchmarks.warm_start import reached


def row(network: str, threads: int, share: float | None = None, **ms: float) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in ms.items()}
    return {"network": network, "threads": threads, "ms": named, "peak_share": share, "tuning": {"minutes": 2.5}}


def test_nothing_measured_is_nothing_known():
    found = summary({"rows": [], "warm_start": {}, "cold_start": {}})
    assert found["networks"] == found["tuning_minutes_total"] == 0
    assert {value for name, value in found.items() if name not in ("networks", "tuning_minutes_total")} == {None}
    assert geomean([]) is None


def test_ratios_above_one_mean_that_ours_is_faster():
    rows = [
        row("ResNet-50", 1, 0.5, netcut=10.0, onnxruntime=20.0, openvino=5.0, torch_compile=40.0),
        row("ResNet-50", 2, 0.3, netcut=10.0, onnxruntime=20.0, openvino=80.0),
        row("alone", 1, None, netcut=1.0),
    ]
    warm = {"a": {"saving": 0.5}, "b": {"saving": None}}
    found = summary({"rows": rows, "warm_start": warm, "cold_start": {"cold_start_s": 0.4}})
    assert (found["networks"], found["tuning_minutes_total"], found["cold_start_s"]) == (2, 7.5, 0.4)
    assert found["geomean_vs_best_peer"] == pytest.approx((0.5 * 2.0) ** 0.5)
    assert found["worst_vs_best_peer"] == 0.5
    assert found["geomean_vs_onnxruntime"] == pytest.approx(2.0)
    assert found["geomean_vs_openvino"] == pytest.approx((0.5 * 8) ** 0.5)
    assert found["geomean_vs_torch_compile"] == pytest.approx(4.0)
    assert found["geomean_vs_torch_eager"] is None
    assert (found["peak_share_median"], found["peak_share_resnet50"]) == (0.4, 0.5)
    assert found["warm_start_saving"] == pytest.approx(0.5)
    assert (found["worst_vs_best_peer_1_thread"], found["worst_vs_best_peer_2_thread"]) == (0.5, 2.0)


def test_trials_are_counted_until_the_network_is_near_its_final_speed() -> None:
    cold = [
        {"trials": 0, "ms": 12.0},
        {"trials": 10, "ms": 11.0},
        {"trials": 20, "ms": 10.4},
        {"trials": 40, "ms": 10.2},
    ]
    warm = [{"trials": 0, "ms": 11.0}, {"trials": 8, "ms": 10.3}, {"trials": 30, "ms": 9.8}]
    found = reached({"cold": cold, "warm": warm})
    assert found["final_ms"] == pytest.approx(10.0)
    assert found["trials_until_near"] == {"cold": 20, "warm": 8}
    assert found["saving"] == pytest.approx(0.4)
    assert found["untuned_over_final"] == pytest.approx({"cold": 1.2, "warm": 1.1})


def test_a_network_that_is_never_near_saves_nothing_known() -> None:
    found = reached({"cold": [{"trials": 0, "ms": 20.0}], "warm": [{"trials": 0, "ms": 10.0}]})
    assert found["trials_until_near"] == {"cold": None, "warm": 0}
    assert found["saving"] is None
