"""The flat summary of `benchmarks.netcut_study`, from its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]


def rounded(value: Any) -> Any:
    """Floats with six significant digits: a result file is read by people too."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(member) for key, member in value.items()}
    return [rounded(member) for member in value] if isinstance(value, list) else value


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """What the README quotes.

    Returns
    -------
    dict
        ``max_relative_gain_pct`` and ``min_gain_pct_on_sweep`` of our strategy against the best network off the shelf:
        means over seeds at equal deadlines. Speed-ups and regret over the deadlines of the pool where everything was
        retrained.
    """
    small = [row for row in rows if row["pool"] == "small"]
    whole = [row for row in rows if row["pool"] == "all"]
    every = whole or small
    found: dict[str, Any] = {
        "networks": max((len(row["networks"]) for row in every), default=0),
        "trns": max((sum(not c["uncut"] for n in row["networks"] for c in n["cuts"]) for row in every), default=0),
        "gain_by_images_a_class": {str(images): _gains(group) for images, group in _by_images(every).items()},
        "deadline_violations": sum(
            d["strategies"]["ranked"]["meets"] is False for row in rows for d in row["deadlines"]
        ),
        "better_and_faster": sum(len(row["better_and_faster"]) for row in every),
    }
    gains = [g for g in found["gain_by_images_a_class"].values() if g]
    found["max_relative_gain_pct"] = max((g["max"]["mean_pct"] for g in gains), default=None)
    found["min_gain_pct_on_sweep"] = min((g["min"]["mean_pct"] for g in gains), default=None)
    for strategy, name in (("ranked", "exploration_speedup"), ("netcut", "speedup_of_netcut_strategy")):
        found[name] = _spread(_values(small, strategy, "speedup"))
    for strategy, name in (("ranked", "regret_points"), ("netcut", "regret_points_of_netcut_strategy")):
        found[name] = _spread(_values(small, strategy, "regret_points"))
    found["exploration_speedup_all_networks"] = _spread([s for row in whole for s in extrapolated_speedups(row)])
    found["extrapolated"] = ["exploration_speedup_all_networks"]
    return found


def extrapolated_speedups(row: Row) -> list[float]:
    """Of our strategy at each deadline, against training every cut of every network.

    What was not trained is taken to need the time of its uncut network in proportion to its operations: too little for
    early cuts, whose operations wait for memory, so the speed-up is rather too small.
    """
    exhaustive = row["bill"]["survey_cpu_seconds"]
    for network in row["networks"]:
        uncut = next((c for c in network["cuts"] if c["uncut"]), None)
        if uncut is None or uncut["train_cpu_seconds"] is None or exhaustive is None:
            return []
        for cut in network["cuts"]:
            own = cut["train_cpu_seconds"]
            share = cut["kept_flops"] / uncut["kept_flops"]
            exhaustive += uncut["train_cpu_seconds"] * share if own is None else own
    ours = [d["strategies"]["ranked"] for d in row["deadlines"]]
    return [
        exhaustive / chosen["cpu_seconds"] for chosen in ours if chosen["winner"] is not None and chosen["cpu_seconds"]
    ]


def _by_images(rows: Sequence[Row]) -> dict[Any, list[Row]]:
    groups: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["train_per_class"] or "all"].append(row)
    return dict(groups)


def _gains(rows: Sequence[Row]) -> dict[str, Any]:
    """Largest, smallest and mean gain over the deadlines, each the mean over seeds."""
    at: defaultdict[float, list[float]] = defaultdict(list)
    for row in rows:
        for deadline in row["deadlines"]:
            gain = deadline["strategies"]["ranked"]["gain_pct"]
            if gain is not None:
                at[deadline["deadline_ms"]].append(gain)
    means = {ms: float(np.mean(values)) for ms, values in at.items() if len(values) == len(rows)}
    if not means:
        return {}

    def entry(ms: float) -> dict[str, Any]:
        return {"deadline_ms": ms, "mean_pct": means[ms], "by_seed_pct": at[ms]}

    best, worst = max(means, key=lambda ms: means[ms]), min(means, key=lambda ms: means[ms])
    return {
        "seeds": len(rows),
        "deadlines": len(means),
        "max": entry(best),
        "min": entry(worst),
        "mean_pct": float(np.mean(list(means.values()))),
    }


def _values(rows: Sequence[Row], strategy: str, field: str) -> list[float]:
    chosen = [d["strategies"].get(strategy) for row in rows for d in row["deadlines"]]
    return [c[field] for c in chosen if c is not None and c["winner"] is not None and c[field] is not None]


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "median": float(np.median(values)),
        "mean": float(np.mean(values)),
        "min": float(min(values)),
        "max": float(max(values)),
        "deadlines": len(values),
    }
