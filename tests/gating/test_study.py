"""What the rows of the study come to."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.lcnet_summary import summary

STATIC: dict[str, Any] = {
    "network": "n",
    "seed": 0,
    "epochs": 1,
    "method": "static",
    "accuracy": 0.9,
    "mean_flops": 100,
}


def row(accuracy: float, flops: float, ms: float) -> dict[str, Any]:
    own = {"method": "lc-net", "accuracy": accuracy, "mean_flops": flops, "mean_ms": ms, "static_ms": 2.0}
    return {**STATIC, **own, "gate_overhead_ms": 0.1}


def test_the_fastest_point_within_half_a_point_counts() -> None:
    found = summary([STATIC, row(0.897, 50, 1.2), row(0.899, 80, 1.8), row(0.88, 20, 0.5)])
    assert found["flops_ratio_at_half_point"] == pytest.approx(2)
    assert found["measured_speedup_at_half_point"] == pytest.approx(2 / 1.2)
    assert found["time_saved_over_flops_saved"] == pytest.approx(0.8)
    assert found["gate_overhead_pct"] == pytest.approx(5)
    assert found["budget_violations"] is None


def test_the_better_static_network_is_compared_with() -> None:
    longer = {**STATIC, "method": "static longer", "accuracy": 0.91}
    assert summary([STATIC, longer, row(0.899, 50, 1.2)])["flops_ratio_at_half_point"] is None
    assert summary([STATIC, longer, row(0.906, 50, 1.2)])["flops_ratio_at_half_point"] == pytest.approx(2)


def test_without_such_a_point_nothing_is_claimed() -> None:
    assert set(summary([STATIC, row(0.5, 20, 0.5)]).values()) == {None}
    assert summary([{**STATIC, "method": "deadline", "violations": 3}])["budget_violations"] == 3
