"""How good are the predictions of the demo: every cut of EfficientNet-Lite0 compiled, measured and compared.

The demo itself compiles only its winners. Here all cuts are compiled with the demo's own tuning records (run
``make demo`` first), measured in turn with the uncut network as reference, and compared with what one profile of the
uncut network predicted. Writes ``benchmarks/results/demo_predictions.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine
from netcut_fx.backends.tvm import TvmBackend
from netcut_fx.cutting import cut
from netcut_fx.frontier import deepest_frontier, require_frontiers
from netcut_fx.latency import LatencyModel, kernels_of_cuts
from netcut_fx.measure import Stopwatch
from netcut_fx.model_spec import load_model
from netcut_fx.passes.head import HeadPass
from netcut_fx.profiling import profile_network
from netcut_fx.tracing import trace

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "build" / "demo" / "tuning"
OUT = Path(__file__).parent / "results" / "demo_predictions.json"
TRIALS = 10


def main() -> int:
    if not RECORDS.exists():
        print(f"{RECORDS} is missing; run make demo first", file=sys.stderr)
        return 2
    backend, head = TvmBackend(), HeadPass(10)
    traced = trace(load_model("demo"), torch.zeros(1, 3, 96, 96), name="demo")
    uncut = deepest_frontier(traced)
    frontiers = (*(f for f in require_frontiers(traced) if f.nodes != uncut.nodes), uncut)
    whole = cut(traced, uncut, head=head)
    backend.tune(whole, trials=TRIALS, database=RECORDS)
    profile = profile_network(backend, whole, RECORDS)
    model = LatencyModel.of_calibration(profile.calibration)
    networks = kernels_of_cuts(traced, frontiers, head)
    reference = backend.compile(whole, database=RECORDS)
    rows: list[dict[str, Any]] = []
    for frontier in frontiers:
        estimate = model.price(networks[frontier.name])
        trn = cut(traced, frontier, head=head)
        backend.tune(trn, trials=TRIALS, database=RECORDS)
        compiled = backend.compile(trn, database=RECORDS)
        own, whole_again = Stopwatch(repeat=15).measure_interleaved([compiled.timer(), reference.timer()])
        # A shared machine's clock drifts between profile and measurement; the reference, timed in turn, says how far.
        drift = whole_again.ms / profile.measured.ms
        corrected = own.ms / drift
        rows.append(
            {
                "frontier": frontier.name,
                "predicted_ms": estimate.ms,
                "low_ms": estimate.low_ms,
                "high_ms": estimate.high_ms,
                "provenance": dict(estimate.provenance),
                "measured_ms": own.ms,
                "measured_low_ms": own.low_ms,
                "measured_high_ms": own.high_ms,
                "drift": drift,
                "error_pct": 100 * (estimate.ms / own.ms - 1),
                "error_pct_drift_corrected": 100 * (estimate.ms / corrected - 1),
                "inside_interval": bool(estimate.low_ms <= own.ms <= estimate.high_ms),
            }
        )
        print(f"{frontier.name:12s} predicted {estimate.ms:.3f} measured {own.ms:.3f} drift {drift:.3f}", flush=True)
    errors = np.abs([row["error_pct"] for row in rows])
    corrected_errors = np.abs([row["error_pct_drift_corrected"] for row in rows])
    summary = {
        "cuts": len(rows),
        "mape_pct": float(errors.mean()),
        "max_abs_pct": float(errors.max()),
        "mape_pct_drift_corrected": float(corrected_errors.mean()),
        "within_10_pct": float((errors <= 10).mean()),
        "inside_interval": float(np.mean([row["inside_interval"] for row in rows])),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(
        json.dumps({"machine": machine(), "trials": TRIALS, "summary": summary, "rows": rows}, indent=1) + "\n"
    )
    print(json.dumps(summary, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
