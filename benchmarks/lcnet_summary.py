"""The few figures that the rows of `benchmarks.lcnet_study` come to."""

from __future__ import annotations

from typing import Any

#: How much accuracy may be lost against the static network.
HALF_A_POINT = 0.005


def summary(rows: list[dict[str, Any]]) -> dict[str, float | int | None]:
    """At the fastest LC-Net at most half a point below its own static network; None where there is none.

    The static network is the better of the one that LC-Net started from and of the one that trained on as long.
    """
    static: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if row["method"] in ("static", "static longer"):
            held = static.get(_of(row))
            static[_of(row)] = row if held is None or row["accuracy"] > held["accuracy"] else held
    points: list[tuple[float, float, float, float]] = []
    for row in rows:
        base = static.get(_of(row))
        if row["method"] != "lc-net" or base is None or row["accuracy"] < base["accuracy"] - HALF_A_POINT:
            continue
        flops_kept = row["mean_flops"] / base["mean_flops"]
        ms_kept = row["mean_ms"] / row["static_ms"]
        saved = (1 - ms_kept) / (1 - flops_kept) if flops_kept < 1 else 0.0
        points.append((1 / flops_kept, 1 / ms_kept, saved, 100 * row["gate_overhead_ms"] / row["static_ms"]))
    best = max(points, default=None, key=lambda point: point[1])
    bound = [row["violations"] for row in rows if row["method"] == "deadline"]
    return {
        "flops_ratio_at_half_point": None if best is None else best[0],
        "measured_speedup_at_half_point": None if best is None else best[1],
        "time_saved_over_flops_saved": None if best is None else best[2],
        "gate_overhead_pct": None if best is None else best[3],
        "budget_violations": sum(bound) if bound else None,
    }


def _of(row: dict[str, Any]) -> Any:
    return row["network"], row["seed"], str(row["epochs"])
