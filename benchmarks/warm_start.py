"""How many trials a new network needs with the records of other networks, and without any.

A network is tuned step by step, 1, 2, 4, ... trials a kernel, once with an empty database and once with one that holds
every record of the other networks but none of its own. After each step it is compiled and timed, with the final network
beside it in the same rounds. Counted are the candidates measured until it is within 5 % of the final speed. That is the
mean of both fully tuned networks, since they differ by where memory happens to lie.
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

from benchmarks.speed_networks import NAMES, traced_network
from netcut_fx.backends.base import Backend
from netcut_fx.graph import TracedModule
from netcut_fx.measure import Stopwatch
from netcut_fx.verbs import tvm_backend

#: So close to the final speed counts as there.
NEAR = 1.05


def warm_start(name: str, build: Path, *, trials: int, others_trials: int = 4) -> dict[str, Any]:
    """Candidates measured cold and warm; ``saving`` is warm divided by cold."""
    backend, network = tvm_backend(), traced_network(name)
    cold, warm = build / "warm_start" / "cold", build / "warm_start" / "warm"
    for folder in (cold, warm):
        shutil.rmtree(folder, ignore_errors=True)
    relatives = [other for other in NAMES if other.split()[0] != name.split(maxsplit=1)[0]]
    for other in relatives:
        backend.tune(traced_network(other), trials=others_trials, database=warm, seeds=False)
    steps: dict[str, list[dict[str, Any]]] = {
        "cold": _steps(backend, network, cold, trials),
        "warm": _steps(backend, network, warm, trials),
    }
    timed = [(row, row.pop("timer")) for rows in steps.values() for row in rows]
    measured = Stopwatch(repeat=11).measure_interleaved([timer for _, timer in timed])
    for (row, _), found in zip(timed, measured, strict=True):
        row["ms"] = found.ms
    return {"steps": steps, **reached(steps)}


def reached(steps: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the measured `steps` of ``cold`` and ``warm`` come to."""
    final = statistics.fmean(rows[-1]["ms"] for rows in steps.values())
    near = {kind: next((r["trials"] for r in rows if r["ms"] <= NEAR * final), None) for kind, rows in steps.items()}
    known = near["cold"] is not None and near["warm"] is not None
    return {
        "final_ms": final,
        "untuned_over_final": {kind: rows[0]["ms"] / final for kind, rows in steps.items()},
        "trials_until_near": near,
        # At least one candidate counts on each side: none at all would make the ratio meaningless.
        "saving": max(1, near["warm"] or 0) / max(1, near["cold"] or 0) if known else None,
    }


def _steps(backend: Backend, network: TracedModule, database: Path, trials: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"trials": 0, "timer": backend.compile(network, database=database).timer()}]
    step, spent = 1, 0
    while True:
        spent += backend.tune(network, trials=step, database=database, seeds=False).trials
        rows.append({"trials": spent, "timer": backend.compile(network, database=database).timer()})
        if step >= trials:
            return rows
        step = min(2 * step, trials)
