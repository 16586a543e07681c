"""What the rows of the study come to."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.lcnet_plot import plot
from benchmarks.lcnet_summary import summary

STATIC: dict[str, Any] = {
    "network": "n",
    "seed": 0,
    "rate": 1.0,
    "epochs": [4, 8],
    "method": "static",
    "accuracy": 0.9,
    "mean_flops": 100,
    "mean_ms": 2.0,
}


def row(accuracy: float, flops: float, ms: float) -> dict[str, Any]:
    own = {"method": "lc-net", "rate": 0.5, "accuracy": accuracy, "mean_flops": flops, "mean_ms": ms, "static_ms": 2.0}
    return {**STATIC, **own, "gate_overhead_pct": 5.0}


def at(accuracy: float, flops: float, ms: float, rate: float, seed: int = 0) -> dict[str, Any]:
    return {**row(accuracy, flops, ms), "rate": rate, "seed": seed}


def test_the_fastest_point_within_half_a_point_counts() -> None:
    found = summary([STATIC, at(0.897, 50, 1.2, 0.5), at(0.899, 80, 1.8, 0.8), at(0.88, 20, 0.5, 0.2)])
    assert found["flops_ratio_at_half_point"] == pytest.approx(2)
    assert found["measured_speedup_at_half_point"] == pytest.approx(2 / 1.2)
    assert found["time_saved_over_flops_saved"] == pytest.approx(0.8)
    assert found["gate_overhead_pct"] == pytest.approx(5)
    assert (found["network"], found["rate"], found["seeds"]) == ("n", 0.5, 1)
    assert found["budget_violations"] is None


def test_seeds_count_together() -> None:
    other = {**STATIC, "seed": 1}
    lucky, not_so = at(0.899, 50, 1.2, 0.5), at(0.889, 50, 1.2, 0.5, 1)
    assert summary([STATIC, other, lucky, not_so])["flops_ratio_at_half_point"] is None
    found = summary([STATIC, other, lucky, {**not_so, "accuracy": 0.893, "mean_flops": 30}])
    assert (found["seeds"], found["flops_ratio_at_half_point"]) == (2, pytest.approx(2.5))


def test_rivals_are_compared_at_their_flops() -> None:
    curve = [STATIC, at(0.8, 40, 1.0, 0.4), at(0.9, 80, 1.0, 0.8)]
    rivals = [
        {**row(0.82, 60, 1.0), "method": "random"},
        {**row(0.9, 100, 1.0), "method": "cut"},
        {**row(0.7, 40, 1.0), "method": "l-net", "seed": 1},  # no curve of this seed
    ]
    gains = summary([*curve, *rivals])["gain_over_points"]["n, 4 + 8 epochs"]
    assert gains == {"random": pytest.approx(3), "cut": pytest.approx(0)}


def test_trainings_are_told_apart() -> None:
    rows = [STATIC, at(0.8, 40, 1.0, 0.4), {**row(0.82, 40, 1.0), "method": "random"}]
    shorter = [{**one, "epochs": [1, 1]} for one in (STATIC, at(0.7, 40, 1.0, 0.4), rows[2])]
    gains = summary([*rows, *shorter])["gain_over_points"]
    assert gains["n, 4 + 8 epochs"] == {"random": pytest.approx(-2)}
    assert gains["n, 1 + 1 epochs"] == {"random": pytest.approx(-12)}
    picture = plot([*rows, *shorter])
    assert [picture.count(f">{name}<") for name in gains] == [2, 2]  # FLOPs and time


def test_the_better_static_network_is_compared_with() -> None:
    longer = {**STATIC, "method": "static longer", "accuracy": 0.91}
    assert summary([STATIC, longer, row(0.899, 50, 1.2)])["flops_ratio_at_half_point"] is None
    assert summary([STATIC, longer, row(0.906, 50, 1.2)])["flops_ratio_at_half_point"] == pytest.approx(2)


def test_without_such_a_point_nothing_is_claimed() -> None:
    found = summary([STATIC, row(0.5, 20, 0.5)])
    assert found.pop("gain_over_points") == {"n, 4 + 8 epochs": {}}
    assert set(found.values()) == {None}
    assert summary([{**STATIC, "method": "deadline", "violations": 3}])["budget_violations"] == 3
