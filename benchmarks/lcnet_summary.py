"""The few figures that the rows of `benchmarks.lcnet_study` come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]

#: How much accuracy may be lost against the static network.
HALF_A_POINT = 0.005
#: What LC-Net's curve is compared with.
RIVALS = ("l-net", "c-net", "early-exit", "random", "cut")


def summary(rows: list[Row]) -> dict[str, Any]:
    """At the fastest LC-Net that is, on average over seeds, at most half a point below its own static network.

    The static network is for each seed the better of the one that LC-Net started from and of the one that trained on
    as long. `gain_over_points` has, for each training and rival, how many points LC-Net's curve lies above the rival's
    points at their FLOPs, on average.
    """
    points = [point for group in _groups(rows, "lc-net") if (point := _point(group, rows)) is not None]
    kept = [point for point in points if point["lost"] <= HALF_A_POINT]
    best = max(kept, default=None, key=lambda point: point["measured_speedup_at_half_point"])
    bound = [row["violations"] for row in rows if row["method"] == "deadline"]
    names = (
        "flops_ratio_at_half_point",
        "measured_speedup_at_half_point",
        "time_saved_over_flops_saved",
        "gate_overhead_pct",
        "network",
        "rate",
        "seeds",
    )
    return {
        **{name: None if best is None else best[name] for name in names},
        "budget_violations": sum(bound) if bound else None,
        "gain_over_points": {name: _gains(part) for name, part in trainings(rows).items()},
    }


def _groups(rows: Sequence[Row], method: str) -> list[list[Row]]:
    """Rows of a method that differ in their seed alone."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        if row["method"] == method:
            found.setdefault((row["network"], row["rate"], str(row["epochs"])), []).append(row)
    return list(found.values())


def _point(group: list[Row], rows: Sequence[Row]) -> Row | None:
    bases = [base for row in group if (base := static_of(row, rows)) is not None]
    if len(bases) < len(group):
        return None
    pairs = list(zip(group, bases, strict=True))
    flops_kept = float(np.mean([row["mean_flops"] / base["mean_flops"] for row, base in pairs]))
    ms_kept = float(np.mean([row["mean_ms"] / row["static_ms"] for row in group]))
    return {
        "lost": float(np.mean([base["accuracy"] - row["accuracy"] for row, base in pairs])),
        "flops_ratio_at_half_point": 1 / flops_kept,
        "measured_speedup_at_half_point": 1 / ms_kept,
        "time_saved_over_flops_saved": (1 - ms_kept) / (1 - flops_kept) if flops_kept < 1 else 0.0,
        "gate_overhead_pct": float(np.mean([row["gate_overhead_pct"] for row in group])),
        "network": group[0]["network"],
        "rate": group[0]["rate"],
        "seeds": len(group),
    }


def static_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The better of the static networks of the same network, seed and epochs."""
    held = [
        other
        for other in rows
        if other["method"] in ("static", "static longer")
        and (other["network"], other["seed"], other["epochs"]) == (row["network"], row["seed"], row["epochs"])
    ]
    return max(held, default=None, key=lambda other: other["accuracy"])


def trainings(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of the same network, trained for as many epochs."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        static, further = row["epochs"]
        found.setdefault(f"{row['network']}, {static} + {further} epochs", []).append(row)
    return found


def _gains(rows: Sequence[Row]) -> dict[str, float]:
    """Over each rival, in points."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] in RIVALS:
            same = (row["seed"], row["epochs"])
            curve = [r for r in rows if r["method"] == "lc-net" and (r["seed"], r["epochs"]) == same]
            if curve:
                found.setdefault(row["method"], []).append(100 * (_at(curve, row["mean_flops"]) - row["accuracy"]))
    return {method: float(np.mean(gains)) for method, gains in found.items()}


def _at(curve: Sequence[Row], flops: float) -> float:
    """Accuracy at some FLOPs, between the points of a curve; beyond its ends, that of the end."""
    points = np.array(sorted((row["mean_flops"], row["accuracy"]) for row in curve))
    return float(np.interp(flops, points[:, 0], points[:, 1]))
