"""The flat summary of `benchmarks.netcut_study`, from its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

Row = dict[str, Any]


def portable(value: Any, root: Path) -> Any:
    """Paths in texts as seen from `root`, the folder of the project."""
    return _each(value, str, lambda text: text.replace(f"{root}/", "").replace(f"{root.parent}/", "../"))


def rounded(value: Any) -> Any:
    """Floats with six significant digits: a result file is read by people too."""
    return _each(value, float, lambda number: float(f"{number:.6g}"))


def _each(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A copy of a JSON value in which everything of `kind` is changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(member, kind, change) for key, member in value.items()}
    return [_each(member, kind, change) for member in value] if isinstance(value, list) else value


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """What the README quotes, flat.

    Returns
    -------
    dict
        ``max_relative_gain_pct`` and ``min_gain_pct_on_sweep`` of our strategy against the best network off the shelf,
        each the mean over the seeds at one deadline; ``*_strict_gain_pct`` against the network off the shelf that turns
        out best on test; ``*_of_best_known_pct`` of the best of all that was retrained for any deadline. Speed-ups are
        medians over deadlines, regrets means. ``measured_*`` and the regrets are of the pool in which every candidate
        was retrained; in the speed-ups over all networks, named in ``extrapolated``, what was not trained has a price.
    """
    details = details_of(rows)
    gains = [(g, images) for images, g in details["gain_by_images_a_class"].items() if g]
    best = max(gains, key=lambda found: found[0]["max"]["mean_pct"], default=None)
    worst = min(gains, key=lambda found: found[0]["min"]["mean_pct"], default=None)
    every = _whole(rows)
    found: dict[str, Any] = {
        "networks": max((len(row["networks"]) for row in every), default=0),
        "trns": max((sum(not c["uncut"] for n in row["networks"] for c in n["cuts"]) for row in every), default=0),
        "max_relative_gain_pct": None if best is None else best[0]["max"]["mean_pct"],
        "max_gain_images_a_class": None if best is None else best[1],
        "max_gain_deadline_ms": None if best is None else best[0]["max"]["deadline_ms"],
        "min_gain_pct_on_sweep": None if worst is None else worst[0]["min"]["mean_pct"],
        **_extremes(details, "strict_gain"),
        **_extremes(details, "gain_of_best_known"),
        "deadline_violations": sum(
            d["strategies"]["ranked"]["meets"] is False for row in rows for d in row["deadlines"]
        ),
        "better_and_faster": sum(len(row["better_and_faster"]) for row in every),
    }
    for name, statistic in (
        ("exploration_speedup", "median"),
        ("speedup_of_netcut_strategy", "median"),
        ("measured_speedup_small_networks", "median"),
        ("measured_speedup_of_netcut_strategy_small_networks", "median"),
        ("regret_points", "mean"),
        ("regret_points_of_netcut_strategy", "mean"),
    ):
        found[name] = None if details[name] is None else details[name][statistic]
    found["extrapolated"] = ["exploration_speedup", "speedup_of_netcut_strategy"]
    return found


def _extremes(details: Row, name: str) -> dict[str, float | None]:
    """Largest and smallest of one kind of gain, whatever the number of images."""
    groups = [g for g in details[f"{name}_by_images_a_class"].values() if g]
    return {
        f"max_{name}_pct": max((g["max"]["mean_pct"] for g in groups), default=None),
        f"min_{name}_pct": min((g["min"]["mean_pct"] for g in groups), default=None),
    }


def details_of(rows: Sequence[Row]) -> dict[str, Any]:
    """What `summary` is taken from, with seeds and spreads."""
    small = [row for row in rows if row["pool"] == "small"]
    whole = [row for row in rows if row["pool"] == "all"]
    settings = _by_images(_whole(rows)).items()
    return {
        **{
            f"{name}_by_images_a_class": {str(images): _gains(group, gain_pct) for images, group in settings}
            for name, gain_pct in _GAINS.items()
        },
        "exploration_speedup": _spread([s for row in whole for s in extrapolated_speedups(row, "ranked")]),
        "speedup_of_netcut_strategy": _spread([s for row in whole for s in extrapolated_speedups(row, "netcut")]),
        "exploration_speedup_where_a_network_meets": _spread(
            [s for row in whole for s in extrapolated_speedups(row, "ranked", shelf_only=True)]
        ),
        "speedup_of_netcut_strategy_where_a_network_meets": _spread(
            [s for row in whole for s in extrapolated_speedups(row, "netcut", shelf_only=True)]
        ),
        "whole_sweep_speedup": _spread([s for row in whole if (s := sweep_speedup(row)) is not None]),
        "measured_speedup_small_networks": _spread(_values(small, "ranked", "speedup")),
        "measured_speedup_of_netcut_strategy_small_networks": _spread(_values(small, "netcut", "speedup")),
        "regret_points": _spread(_values(small, "ranked", "regret_points")),
        "regret_points_of_netcut_strategy": _spread(_values(small, "netcut", "regret_points")),
    }


def _whole(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["pool"] == "all"] or [row for row in rows if row["pool"] == "small"]


def most_telling(rows: Sequence[Row]) -> Row:
    """The row with the largest gain at any deadline, for a picture."""

    def largest(row: Row) -> float:
        gains = [d["strategies"]["ranked"]["gain_pct"] for d in row["deadlines"]]
        return max((g for g in gains if g is not None), default=float("-inf"))

    return max(_whole(rows), key=largest)


def extrapolated_speedups(row: Row, strategy: str, *, shelf_only: bool = False) -> list[float]:
    """Of a strategy at each deadline, against training every cut of every network.

    What was not trained is taken to need the time of its uncut network in proportion to its operations: too little for
    early cuts, whose operations wait for memory, so the speed-up is rather too small. The published strategy was not
    run on all networks; what it retrains follows from the predictions. `shelf_only`: at deadlines that some uncut
    network meets; shorter ones leave little to train.
    """
    survey = row["bill"]["survey_cpu_seconds"]
    prices = [_prices(network["cuts"]) for network in row["networks"]]
    exhaustive = exhaustive_seconds(row)
    if exhaustive is None:
        return []
    found: list[float] = []
    for deadline in row["deadlines"]:
        ours = deadline["strategies"]["ranked"]
        if ours["winner"] is None or (shelf_only and deadline["off_the_shelf"] is None):
            continue
        if strategy == "ranked":
            found.append(exhaustive / ours["cpu_seconds"])
            continue
        # Cuts stand shallow to deep: of each network the last that is predicted in time.
        picks = [
            [p for c, p in zip(network["cuts"], own or (), strict=True) if _in_time(c, deadline["deadline_ms"])][-1:]
            for network, own in zip(row["networks"], prices, strict=True)
        ]
        found.append(exhaustive / (survey + sum(sum(p) for p in picks)))
    return found


def sweep_speedup(row: Row) -> float | None:
    """Of our strategy for all deadlines together; each winner is retrained once."""
    exhaustive = exhaustive_seconds(row)
    won = [d["strategies"]["ranked"]["winner"] for d in row["deadlines"]]
    seconds = {(w["network"], w["cut"]): w["train_cpu_seconds"] for w in won if w is not None}
    if exhaustive is None or not seconds:
        return None
    return exhaustive / (row["bill"]["survey_cpu_seconds"] + sum(seconds.values()))


def exhaustive_seconds(row: Row) -> float | None:
    """Of the survey and of retraining every candidate, those that nobody retrained by their price; None if unknown."""
    prices = [_prices(network["cuts"]) for network in row["networks"]]
    survey = row["bill"]["survey_cpu_seconds"]
    if survey is None or any(p is None for p in prices):
        return None
    return survey + sum(sum(p) for p in prices if p is not None)


def _in_time(cut: Row, deadline_ms: float) -> bool:
    return cut["predicted_ms"] is not None and cut["predicted_ms"] <= deadline_ms


def _prices(cuts: Sequence[Row]) -> list[float] | None:
    """Seconds of retraining each cut of one network, as measured or by operations; None if the uncut is unknown."""
    uncut = next((c for c in cuts if c["uncut"]), None)
    if uncut is None or uncut["train_cpu_seconds"] is None:
        return None
    known = [c["train_cpu_seconds"] for c in cuts]
    shares = [c["kept_flops"] / uncut["kept_flops"] for c in cuts]
    return [uncut["train_cpu_seconds"] * s if k is None else k for k, s in zip(known, shares, strict=True)]


def _by_images(rows: Sequence[Row]) -> dict[Any, list[Row]]:
    groups: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["train_per_class"] or "all"].append(row)
    return dict(groups)


def _gain_pct(_row: Row, deadline: Row) -> float | None:
    """Top-1 of our winner over that of the best network off the shelf."""
    return deadline["strategies"]["ranked"]["gain_pct"]


def _strict_gain_pct(row: Row, deadline: Row) -> float | None:
    """The same over the network off the shelf that is best on test: who picks on validation may pick another."""
    ours = deadline["strategies"]["ranked"]["winner"]
    theirs = [
        c["test_accuracy"]
        for network in row["networks"]
        for c in network["cuts"]
        if c["uncut"] and None not in (c["measured_ms"], c["test_accuracy"])
        if c["measured_ms"] <= deadline["deadline_ms"]
    ]
    return None if ours is None or not theirs else 100 * (ours["test_accuracy"] / max(theirs) - 1)


def _known_gain_pct(_row: Row, deadline: Row) -> float | None:
    """As `_gain_pct`, for the best of all that was retrained for any deadline, uncut networks included."""
    return deadline["best_known"]["gain_pct"]


def _angular_gain_pct(_row: Row, deadline: Row) -> float | None:
    """Of our winner in angular similarity, the metric of NetCut's paper."""
    ours, shelf = deadline["strategies"]["ranked"]["winner"], deadline["off_the_shelf"]
    if ours is None or shelf is None:
        return None
    return 100 * (ours["angular_similarity"] / shelf["angular_similarity"] - 1)


_GAINS = {
    "gain": _gain_pct,
    "strict_gain": _strict_gain_pct,
    "gain_of_best_known": _known_gain_pct,
    "angular_gain": _angular_gain_pct,
}


def _gains(rows: Sequence[Row], gain_pct: Callable[[Row, Row], float | None]) -> dict[str, Any]:
    """Largest, smallest and mean gain over the deadlines, each the mean over seeds."""
    at: defaultdict[float, list[float]] = defaultdict(list)
    for row in rows:
        for deadline in row["deadlines"]:
            gain = gain_pct(row, deadline)
            if gain is not None:
                at[deadline["deadline_ms"]].append(gain)
    means = {ms: float(np.mean(values)) for ms, values in at.items() if len(values) == len(rows)}
    if not means:
        return {}

    def entry(ms: float) -> dict[str, Any]:
        return {"deadline_ms": ms, "mean_pct": means[ms], "by_seed_pct": at[ms], "interval_pct": interval(at[ms])}

    best, worst = max(means, key=lambda ms: means[ms]), min(means, key=lambda ms: means[ms])
    return {
        "seeds": len(rows),
        "deadlines": len(means),
        "max": entry(best),
        "min": entry(worst),
        "mean_pct": float(np.mean(list(means.values()))),
    }


def interval(values: Sequence[float]) -> list[float] | None:
    """95 % interval of the mean over seeds, by Student's distribution; None for a single seed."""
    if len(values) < 2:
        return None
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


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
