"""What `benchmarks.artefact_speed` comes to: ratios above 1 mean that ours is faster."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def geomean(values: Sequence[float]) -> float | None:
    """Geometric mean; None of nothing."""
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else None


def _ratios(rows: Iterable[dict[str, Any]], peer: str) -> list[float]:
    return [row["ms"][peer] / row["ms"]["netcut"] for row in rows if peer in row["ms"]]


def _best(row: dict[str, Any]) -> float:
    """Our speed relative to the fastest peer of this network and thread count."""
    return min(ms for name, ms in row["ms"].items() if name != "netcut") / row["ms"]["netcut"]


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Flat figures over all rows, and the same for each thread count as ``..._1_thread``."""
    rows = result["rows"]
    compared = [row for row in rows if len(row["ms"]) > 1]
    shares = [row["peak_share"] for row in rows if row["peak_share"] is not None]
    savings = [found["saving"] for found in result["warm_start"].values() if found["saving"] is not None]
    found: dict[str, Any] = {
        "networks": len({row["network"] for row in rows}),
        "geomean_vs_best_peer": geomean([_best(row) for row in compared]),
        "worst_vs_best_peer": min((_best(row) for row in compared), default=None),
        "geomean_vs_onnxruntime": geomean(_ratios(rows, "onnxruntime")),
        "geomean_vs_openvino": geomean(_ratios(rows, "openvino")),
        "geomean_vs_torch_compile": geomean(_ratios(rows, "torch-compile")),
        "geomean_vs_torch_eager": geomean(_ratios(rows, "torch-eager")),
        "peak_share_median": statistics.median(shares) if shares else None,
        "peak_share_resnet50": next(
            (row["peak_share"] for row in rows if (row["network"], row["threads"]) == ("ResNet-50", 1)), None
        ),
        "tuning_minutes_total": sum(row["tuning"]["minutes"] for row in rows),
        "warm_start_saving": geomean(savings),
        "cold_start_s": result["cold_start"].get("cold_start_s"),
    }
    for threads in sorted({row["threads"] for row in compared}):
        values = [_best(row) for row in compared if row["threads"] == threads]
        found[f"geomean_vs_best_peer_{threads}_thread"] = geomean(values)
        found[f"worst_vs_best_peer_{threads}_thread"] = min(values)
    return found
