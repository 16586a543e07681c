"""What an exploration cost, step by step.

Surveys and retraining are counted in seconds of the processor, which do not depend on what else the machine was doing;
tuning and timing, which must have it to themselves, in seconds on the clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from netcut_fx.exploration.explorer import Explorer
from netcut_fx.exploration.facts import Key


def cpu_seconds(explorer: Explorer, keys: Iterable[Key]) -> float:
    """Of retraining `keys`."""
    trained = explorer.facts.trained
    return sum(trained[k].cpu_seconds for k in keys if k in trained)


def survey_seconds(explorer: Explorer) -> float | None:
    """Of the features and quick heads of all networks; None if a kill left one of them unknown."""
    rows = [row["cpu_seconds"] for (kind, _, _), row in explorer.rows.items() if kind == "survey"]
    return None if any(seconds is None for seconds in rows) else float(sum(rows))


def strategy_seconds(explorer: Explorer, retrained: Iterable[Key]) -> float | None:
    """Of the survey, whose features every retraining starts from, and of `retrained`; tuning is the same for all."""
    survey = survey_seconds(explorer)
    return None if survey is None else survey + cpu_seconds(explorer, retrained)


def bill_of(explorer: Explorer) -> dict[str, Any]:
    """Seconds by step, in all and for each network."""
    facts, rows = explorer.facts, explorer.rows
    by_network: dict[str, dict[str, float | None]] = {}
    for name in explorer.networks:
        survey, timed = rows.get(("survey", name, "")), rows.get(("time", name, ""))
        by_network[name] = {
            "survey_cpu_seconds": None if survey is None else survey["cpu_seconds"],
            "tune_and_profile_seconds": None if timed is None else timed["seconds"],
            "retrain_cpu_seconds": cpu_seconds(explorer, [k for k in facts.trained if k[0] == name]),
            "measure_seconds": sum(
                row["seconds"] for (kind, n, _), row in rows.items() if (kind, n) == ("measure", name)
            ),
        }
    totals = {
        step: None
        if any(row[step] is None for row in by_network.values())
        else sum(row[step] or 0.0 for row in by_network.values())
        for step in ("survey_cpu_seconds", "tune_and_profile_seconds", "retrain_cpu_seconds", "measure_seconds")
    }
    uncut = [c.key for c in facts.usable() if c.uncut]
    return {
        **totals,
        "retrained": len(facts.trained),
        "candidates": len(facts.candidates),
        "uncut_retrain_cpu_seconds": cpu_seconds(explorer, uncut),
        "by_network": by_network,
    }
